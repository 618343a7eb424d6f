#include "simt/tensor_core.hpp"

#include <atomic>

#include "formats/decode.hpp"
#include "formats/encode.hpp"
#include "simt/memory.hpp"

namespace gradkern::simt {
namespace {

constexpr unsigned whole_warp = 0xFFFFFFFFu;

std::atomic<Architecture> imitated{Architecture::hopper};

int bits_of(formats::FormatId id) {
  return formats::visit(id, []<class F>(F) { return static_cast<int>(8 * sizeof(typename F::container)); });
}

struct Tile {  // the matrices of one mma, element by element, as bits
  std::uint32_t a[16][32], b[32][8], c[16][8];
};

// Stand-in for csrc/mma: the exact sum in double, rounded once.
double value_of(formats::FormatId id, std::uint32_t bits) {
  return formats::visit(id,
                        [bits]<class F>(F) { return formats::decode<F>(static_cast<typename F::container>(bits)); });
}
void mma_step(const MmaShape& shape, Tile& tile) {
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      double sum = value_of(shape.accumulator, tile.c[row][column]);
      for (int k = 0; k < shape.k; ++k) sum += value_of(shape.a, tile.a[row][k]) * value_of(shape.b, tile.b[k][column]);
      tile.c[row][column] = formats::visit(shape.accumulator, [sum]<class F>(F) {
        return static_cast<std::uint32_t>(formats::encode<F>(sum, formats::Mode{}).bits);
      });
    }
  }
}

struct Fragments {
  const std::uint32_t *a, *b;
  std::uint32_t* accumulators;
};

std::uint32_t element(std::uint32_t word, int index, int bits) {
  return bits == 32 ? word & ~0x1FFFu
                    : word >> (index * bits) & ((1u << bits) - 1);  // tfloat32: the unit reads 19 bits
}

template <class At>
void gather(const MmaShape& shape, At at, Tile& tile) {
  const int bits = bits_of(shape.a), each = 32 / bits, halves = shape.k / (4 * each);
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments& f = at(static_cast<unsigned>(lane));
    const int group = lane / 4, inner = lane % 4;
    for (int half = 0; half < halves; ++half) {
      for (int e = 0; e < each; ++e) {
        const int k = (4 * half + inner) * each + e;
        tile.a[group][k] = element(f.a[2 * half], e, bits);
        tile.a[group + 8][k] = element(f.a[2 * half + 1], e, bits);
        tile.b[k][group] = element(f.b[half], e, bits);
      }
    }
    for (int i = 0; i < 4; ++i) tile.c[group + 8 * (i / 2)][2 * inner + i % 2] = f.accumulators[i];
  }
}

}  // namespace

void set_architecture(Architecture wanted) { imitated = wanted; }
Architecture architecture() { return imitated; }

void mma(const Site& site, const MmaShape& shape, const std::uint32_t* a, const std::uint32_t* b,
         std::uint32_t (&accumulators)[4]) {
  Fragments mine{a, b, accumulators};
  warp_collective(site, whole_warp, mine, [&shape](auto at) {
    Tile tile;
    gather(shape, at, tile);
    mma_step(shape, tile);
    for (unsigned lane = 0; lane < 32; ++lane) {
      for (unsigned i = 0; i < 4; ++i) {
        at(lane).accumulators[i] = tile.c[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
      }
    }
  });
}

void ldmatrix(const Site& site, std::uint32_t* registers, int count, bool transposed, const void* row) {
  struct Operand {
    const void* row;
    std::uint32_t* registers;
  } mine{row, registers};
  if (running->lane < 8u * static_cast<unsigned>(count)) access(site, row, 16);
  warp_collective(site, whole_warp, mine, [count, transposed](auto at) {
    std::uint32_t loaded[32][4];
    for (unsigned m = 0; m < static_cast<unsigned>(count); ++m) {
      std::uint16_t matrix[8][8];
      for (unsigned r = 0; r < 8; ++r) std::memcpy(matrix[r], at(8 * m + r).row, 16);
      for (unsigned lane = 0; lane < 32; ++lane) {
        const unsigned r = lane / 4, c = 2 * (lane % 4);
        const std::uint32_t low = transposed ? matrix[c][r] : matrix[r][c];
        const std::uint32_t high = transposed ? matrix[c + 1][r] : matrix[r][c + 1];
        loaded[lane][m] = low | high << 16;
      }
    }
    for (unsigned lane = 0; lane < 32; ++lane)
      std::memcpy(at(lane).registers, loaded[lane], 4u * static_cast<unsigned>(count));
  });
}

}  // namespace gradkern::simt
