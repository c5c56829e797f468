"""placeholder"""


def cover_router(ctx, node):
    raise NotImplementedError


def cover_experts(ctx, node):
    raise NotImplementedError
