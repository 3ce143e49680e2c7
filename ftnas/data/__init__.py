"""Data sets as tensors on the device, and batches of them. Knows nothing of training."""

from ftnas.data.augmentation import Augmentation
from ftnas.data.batching import batches
from ftnas.data.dataset import Dataset
from ftnas.data.loading import DATA_SETS, load_data
from ftnas.data.splitting import LabelledImages, split_train

__all__ = [
    "DATA_SETS",
    "Augmentation",
    "Dataset",
    "LabelledImages",
    "batches",
    "load_data",
    "split_train",
]
