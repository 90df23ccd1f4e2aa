"""What lets SGLang run on any CPU: the pieces that `engine.platform` plugs in.

`vision_shim`  lets a CUDA build of torchvision be imported beside a CPU build of torch
`sampling`     a sampler whose choice depends on (seed, position) only
`mla`          keeps latent attention (DeepSeek) on the absorbed method
`moe`          experts in plain torch that skip the experts of other ranks
"""
