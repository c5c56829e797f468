"""Settings of sparse attention that the frontier measures: every method that touches prompts and needs no training."""

from __future__ import annotations

from dataclasses import dataclass

CONTEXT, CHUNK = 8192, 512


@dataclass(frozen=True)
class Setting:
    """One setting of one method.

    Args:
        chunk: Tokens of a step; a whole prompt for methods that score with its last queries.
    """

    name: str
    options: str
    chunk: int = CHUNK

    @property
    def method(self) -> str:
        return self.options.split(",")[0]

    def given(self) -> dict[str, object]:
        """Options as the pass takes them."""
        from fretsaw.passes.kit.options import parse_assignments

        return dict(parse_assignments(f"method={self.options}"))


# One setting of each method, then others. quest decodes only, seer_attention needs its trained gate, dense leaves
# nothing out. Rows before 2,048 are dense where a method has that choice, so that methods are compared alike.
SETTINGS = (
    Setting("xattention_98", "xattention,threshold=0.98,stride=16"),
    Setting("mean_pool_50", "mean_pool,density=0.5"),
    Setting("moa_50", "moa,alpha=1024,beta=0.5,dense_until=2048"),
    Setting("prism_98", "prism,p=0.98"),
    Setting("dhsa_35", "dhsa,density=0.35"),
    Setting("hip_2048", "hip,mask_k=2048,window=512"),
    Setting("infllm_v2_48", "infllm_v2,blocks=48,window=1024,dense_until=2048"),
    Setting("minference_2000", "minference,vertical=1000,slash=2000,columns=blocks", CONTEXT),
    Setting("minference_500", "minference,vertical=250,slash=500", CONTEXT),
    Setting("flex_95", "flex_prefill,gamma=0.95", CONTEXT),
    Setting("tri_shape_2048", "tri_shape,sink=128,window=2048", CONTEXT),
    Setting("triangle_mix", "triangle_mix,window=1024", CONTEXT),
    Setting("lambda_2048", "lambda_mask,sink=64,window=2048"),
    Setting("masformer_2048", "masformer,full_layers=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,window=2048,decode=false"),
    Setting("s2_2", "s2,local=16,stride=2"),
    Setting("longheads_48", "longheads,blocks=48,dense_until=2048", CONTEXT),
    Setting("infllm_32", "infllm,blocks=32,window=1024,dense_until=2048", CONTEXT),
    Setting("hyper_32", "hyper_attention,blocks=32,sampled=8,dense_until=2048"),
    Setting("xattention_95", "xattention,threshold=0.95,stride=16"),
    Setting("xattention_90", "xattention,threshold=0.9,stride=16"),
    Setting("mean_pool_25", "mean_pool,density=0.25"),
    Setting("moa_25", "moa,alpha=1024,beta=0.25,dense_until=2048"),
    Setting("prism_95", "prism,p=0.95"),
)  # fmt: skip
