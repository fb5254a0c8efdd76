"""Loads a Distributed Checkpoint with PyTorch's own reader and compares it with what it must hold.

    python test/parity/torch-dcp.py FOLDER [--expect FILE.safetensors] [--like FOLDER]

--expect: every tensor equals the one of that name in the file, bitwise, and no other is there.
--like: metadata equals that of another folder, class by class, but for where items lie and for the path that the
checkpoint was saved to.

Needs torch and nothing else. Prints one JSON object; exit code 1 when anything differs.
"""

import argparse
import json
import struct
import sys

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz, "F8_E8M0": torch.float8_e8m0fnu, "C64": torch.complex64,
}  # fmt: skip


def safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        yield name, entry["dtype"], entry["shape"], data[begin:end]


def raw(tensor):
    flat = tensor.detach().contiguous().flatten()
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def load_flat(folder, metadata):
    """Into tensors of the saved shapes, under flat names."""
    state = {
        name: torch.zeros(entry.size, dtype=entry.properties.dtype) if isinstance(entry, TensorStorageMetadata) else ""
        for name, entry in metadata.state_dict_metadata.items()
    }
    dcp.load(
        state,
        storage_reader=dcp.FileSystemReader(folder),
        planner=DefaultLoadPlanner(flatten_state_dict=False),
        no_dist=True,
    )
    return state


def load_nested(folder):
    """Into a state nested by the planner's paths, as `dcp_to_torch_save` does."""
    state = {}
    _load_state_dict(
        state, storage_reader=dcp.FileSystemReader(folder), planner=_EmptyStateDictLoadPlanner(), no_dist=True
    )
    return state


def at_path(state, path):
    for key in path:
        state = state[key]
    return state


def shape_of(entry):
    if isinstance(entry, BytesStorageMetadata):
        return "bytes"
    chunks = sorted((tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in entry.chunks)
    return type(entry).__name__, entry.properties, tuple(entry.size), chunks


def items_of(metadata):
    """Which items there are. A replicated one may lie in any rank's file, and its length depends on how a value was pickled."""
    return {(type(index).__name__, index.fqn, index.offset, type(info).__name__) for index, info in metadata.storage_data.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--expect")
    parser.add_argument("--like")
    args = parser.parse_args()
    faults = []
    metadata = dcp.FileSystemReader(args.folder).read_metadata()
    flat = load_flat(args.folder, metadata)
    tensors = {name: value for name, value in flat.items() if isinstance(value, torch.Tensor)}
    state = load_nested(args.folder)
    nested = {name: at_path(state, path) for name, path in metadata.planner_data.items()}
    for name, value in tensors.items():
        if raw(nested[name]) != raw(value):
            faults.append(f"{name}: differs in the nested state")
    if args.expect:
        expected = {name: rest for name, *rest in safetensors(args.expect)}
        for name in expected.keys() ^ tensors.keys():
            faults.append(f"{name}: in one of the two only")
        for name in expected.keys() & tensors.keys():
            dtype, shape, data = expected[name]
            value = tensors[name]
            if value.dtype != DTYPES[dtype] or list(value.shape) != shape or raw(value) != data:
                faults.append(f"{name}: differs")
    if args.like:
        other = dcp.FileSystemReader(args.like).read_metadata()
        ours, theirs = (
            {name: shape_of(entry) for name, entry in each.state_dict_metadata.items()} for each in (metadata, other)
        )
        for name in ours.keys() | theirs.keys():
            if ours.get(name) != theirs.get(name):
                faults.append(f"{name}: {ours.get(name)} for {theirs.get(name)}")
        if metadata.planner_data != other.planner_data:
            faults.append("planner_data differs")
        if items_of(metadata) != items_of(other):
            faults.append("storage_data differs")
        if type(metadata) is not type(other) or metadata.version != other.version:
            faults.append("class or version differs")
    values = {name: repr(value) for name, value in nested.items() if name not in tensors}
    print(json.dumps({"torch": torch.__version__, "tensors": len(tensors), "values": values, "faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
