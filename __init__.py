"""TCD Toolkit: trajectory consistency distillation (arXiv 2402.19159) for ComfyUI.

The host loads this folder by path and calls `comfy_entrypoint`; nothing is imported before that, so that tools which
merely look at the folder (pytest, packaging) need no host.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """ComfyUI's V3 entry point: register sampler and scheduler `tcd`, hand over the nodes."""
    from .nodes.extension import TCDToolkitExtension
    from .nodes.registration import register, register_again_at_start

    register()
    register_again_at_start()
    return TCDToolkitExtension()
