// Operands of a matrix unit that its kernel cannot copy as they lie, because of their format, their addresses or an
// instruction that takes k in another order. They are laid out once, in memory, as warps read them: ldmatrix after
// ldmatrix of 16 rows and 32 bytes of k, 512 bytes each, in the order of its lanes.
#pragma once

#include "cuda/kernels.hpp"
#include "cuda/lanes.hpp"

namespace gradkern::cuda {

struct MmaPack {
  const unsigned char* data;
  FormatId format;
  std::int64_t outer_stride, k_stride;  // in elements
  int outer, k;
  int tile;        // rows of a tile, which has 64 bytes of k
  bool is_a;       // lanes go down the rows first, then along k; of b the other way round
  bool in_halves;  // k in the order of mma::place_in_halves
  bool vector;     // 16 bytes of k may be loaded at once
  unsigned char* packed;
};

// Tiles that hold k entries, `depth` in each: an even number, for the kernel takes two at a time.
__host__ __device__ constexpr std::int64_t packed_tiles(int k, int depth) {
  return (std::int64_t(k) + 2 * depth - 1) / (2 * depth) * 2;
}

// Of whole tiles in the unit's format, zeros beyond the end: tiles of the same rows one after another.
std::int64_t packed_bytes(const MmaPack& pack, FormatId unit);
// Entries are rounded to nearest even where the unit's format is another than their own.
int mma_pack(const MmaPack& pack, FormatId unit, Stream stream);

}  // namespace gradkern::cuda
