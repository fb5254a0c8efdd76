"""The PyTorch side of gpu.ts: GPT-2 124M under FSDP2. torch-fsdp2.py WORLD... ; one JSON object a line."""
import json, os, statistics, sys, time

try:
    import torch, torch.distributed as dist, torch.multiprocessing as mp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from transformers import GPT2Config, GPT2LMHeadModel
except ImportError as error:
    sys.exit(f"no torch: {error}")
BATCH, SEQ, WARMUP, STEPS = 8, 1024, 3, 10


def worker(rank, world, mode, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    torch.cuda.set_device(rank)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = mode == "tf32"
    dist.init_process_group("nccl", rank=rank, world_size=world)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)).cuda()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16) if mode == "bf16" else MixedPrecisionPolicy()
    mesh = init_device_mesh("cuda", (world,))
    for block in model.transformer.h: fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(0, model.config.vocab_size, (BATCH, SEQ), device="cuda")
    times = []
    for step in range(WARMUP + STEPS):
        torch.cuda.synchronize(); dist.barrier(); began = time.perf_counter()
        logits = model(ids).logits
        torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten()).backward()
        optimizer.step(); optimizer.zero_grad()
        torch.cuda.synchronize()
        if step >= WARMUP: times.append((time.perf_counter() - began) * 1e3)
    if rank == 0:
        ms = statistics.median(times)
        print(json.dumps(dict(mode=mode, world=world, ms=round(ms, 1), tokens=round(world * BATCH * SEQ * 1e3 / ms), peak=round(torch.cuda.max_memory_allocated() / 2**30, 2))), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    if not torch.cuda.is_available(): sys.exit("no CUDA")
    port = 29811
    for world in map(int, sys.argv[1:] or ["1"]):
        for mode in ("f32", "tf32", "bf16"):
            port += 1
            try: mp.spawn(worker, args=(world, mode, port), nprocs=world)
            except Exception as error: print(mode, world, error, file=sys.stderr)
