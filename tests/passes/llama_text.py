def llama(layers, H=4, K=2, E=8, D=32, F=48, V=64):
    L=[]; C=[]
    L.append(f"%emb: f32[B, S, {D}] = embedding(%input_ids, %embed)  // model.embed_tokens")
    L.append("%pf: f32[B, S] = cast(%positions) {dtype = \"f32\"}  // model.rotary_emb")
    L.append("%pu: f32[B, S, 1] = reshape(%pf) {shape = [B, S, 1]}")
    L.append(f"%fr: f32[B, S, {E//2}] = mul(%pu, %inv_freq)")
    L.append(f"%em: f32[B, S, {E}] = concat(%fr, %fr) {{axis = 2}}")
    L.append(f"%cosr: f32[B, S, {E}] = cos(%em)")
    L.append(f"%cos: f32[B, S, {E}] = mul(%cosr, %one)")
    L.append(f"%sinr: f32[B, S, {E}] = sin(%em)")
    L.append(f"%sin: f32[B, S, {E}] = mul(%sinr, %one)")
    C += [f"const %embed: f32[{V}, {D}]", f"const %inv_freq: f32[{E//2}] = data([{', '.join(str(10000.0**(-2*i/E)) for i in range(E//2))}])", "const %one: f32[] = data([1.0])", "const %two: f32[] = data([2.0])", "const %eps: f32[] = data([1e-05])"]
    def norm(p, x, w, mod):
        C.append(f"const %{w}: f32[{D}]")
        L.append(f"%{p}.sq: f32[B, S, {D}] = pow({x}, %two)  // {mod}")
        L.append(f"%{p}.m: f32[B, S, 1] = mean(%{p}.sq) {{axis = 2, keepdims = true}}  // {mod}")
        L.append(f"%{p}.a: f32[B, S, 1] = add(%{p}.m, %eps)  // {mod}")
        L.append(f"%{p}.r: f32[B, S, 1] = rsqrt(%{p}.a)  // {mod}")
        L.append(f"%{p}.x: f32[B, S, {D}] = mul({x}, %{p}.r)  // {mod}")
        L.append(f"%{p}: f32[B, S, {D}] = mul(%{w}, %{p}.x)  // {mod}")
        return f"%{p}"
    x="%emb"
    for i in range(layers):
        P=f"l{i}"; M=f"model.layers.{i}"
        n=norm(f"{P}.n1", x, f"{P}.ln1.weight", f"{M}.input_layernorm")
        heads={}
        for nm,h in (("q",H),("k",K),("v",K)):
            C.append(f"const %{P}.{nm}_proj.weight: f32[{h*E}, {D}]")
            L.append(f"%{P}.{nm}: f32[B, S, {h*E}] = linear({n}, %{P}.{nm}_proj.weight)  // {M}.self_attn.{nm}_proj")
            L.append(f"%{P}.{nm}.v: f32[B, S, {h}, {E}] = reshape(%{P}.{nm}) {{shape = [B, S, {h}, {E}]}}  // {M}.self_attn")
            L.append(f"%{P}.{nm}.t: f32[B, {h}, S, {E}] = transpose(%{P}.{nm}.v) {{perm = [0, 2, 1, 3]}}  // {M}.self_attn")
            heads[nm]=f"%{P}.{nm}.t"
        for t in ("cos","sin"):
            L.append(f"%{P}.{t}: f32[B, 1, S, {E}] = reshape(%{t}) {{shape = [B, 1, S, {E}]}}  // {M}.self_attn")
        for nm,h in (("q",H),("k",K)):
            s=f"f32[B, {h}, S, {E}]"; s2=f"f32[B, {h}, S, {E//2}]"
            L.append(f"%{P}.{nm}.c: {s} = mul({heads[nm]}, %{P}.cos)  // {M}.self_attn")
            L.append(f"%{P}.{nm}.lo: {s2} = slice({heads[nm]}) {{axis = 3, start = 0, end = {E//2}}}  // {M}.self_attn")
            L.append(f"%{P}.{nm}.hi: {s2} = slice({heads[nm]}) {{axis = 3, start = {E//2}, end = {E}}}  // {M}.self_attn")
            L.append(f"%{P}.{nm}.ng: {s2} = neg(%{P}.{nm}.hi)  // {M}.self_attn")
            L.append(f"%{P}.{nm}.rt: {s} = concat(%{P}.{nm}.ng, %{P}.{nm}.lo) {{axis = 3}}  // {M}.self_attn")
            L.append(f"%{P}.{nm}.s: {s} = mul(%{P}.{nm}.rt, %{P}.sin)  // {M}.self_attn")
            L.append(f"%{P}.{nm}.e: {s} = add(%{P}.{nm}.c, %{P}.{nm}.s)  // {M}.self_attn")
            heads[nm]=f"%{P}.{nm}.e"
        for nm,h in (("q",H),("k",K),("v",K)):
            L.append(f"%{P}.{nm}.b: f32[B, S, {h}, {E}] = transpose({heads[nm]}) {{perm = [0, 2, 1, 3]}}  // {M}.self_attn")
        L.append(f"%{P}.o: f32[B, S, {H}, {E}] = attention(%{P}.q.b, %{P}.k.b, %{P}.v.b) {{scale = {E**-0.5}}}  // {M}.self_attn")
        L.append(f"%{P}.of: f32[B, S, {H*E}] = reshape(%{P}.o) {{shape = [B, S, {H*E}]}}  // {M}.self_attn")
        C.append(f"const %{P}.o_proj.weight: f32[{D}, {H*E}]")
        L.append(f"%{P}.op: f32[B, S, {D}] = linear(%{P}.of, %{P}.o_proj.weight)  // {M}.self_attn.o_proj")
        L.append(f"%{P}.h: f32[B, S, {D}] = add({x}, %{P}.op)  // {M}")
        n=norm(f"{P}.n2", f"%{P}.h", f"{P}.ln2.weight", f"{M}.post_attention_layernorm")
        C += [f"const %{P}.gate.weight: f32[{F}, {D}]", f"const %{P}.up.weight: f32[{F}, {D}]", f"const %{P}.down.weight: f32[{D}, {F}]"]
        L.append(f"%{P}.g: f32[B, S, {F}] = linear({n}, %{P}.gate.weight)  // {M}.mlp.gate_proj")
        L.append(f"%{P}.ga: f32[B, S, {F}] = silu(%{P}.g)  // {M}.mlp.act_fn")
        L.append(f"%{P}.u: f32[B, S, {F}] = linear({n}, %{P}.up.weight)  // {M}.mlp.up_proj")
        L.append(f"%{P}.gu: f32[B, S, {F}] = mul(%{P}.ga, %{P}.u)  // {M}.mlp")
        L.append(f"%{P}.d: f32[B, S, {D}] = linear(%{P}.gu, %{P}.down.weight)  // {M}.mlp.down_proj")
        L.append(f"%{P}.x: f32[B, S, {D}] = add(%{P}.h, %{P}.d)  // {M}")
        x=f"%{P}.x"
    n=norm("fn", x, "fn.weight", "model.norm")
    L.append(f"%logits: f32[B, S, {V}] = linear({n}, %embed)  // lm_head")
    return "\n".join(["graph @llama(%input_ids: i64[B, S], %positions: i64[B, S]) -> (%logits) {","  dim B in [1, 64]","  dim S in [1, 4096]",*("  "+c for c in C),*("  "+l for l in L),"}"])
