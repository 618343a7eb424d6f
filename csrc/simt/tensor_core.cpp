#include "simt/tensor_core.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

#include "mma/model.hpp"
#include "simt/memory.hpp"

namespace gradkern::simt {
namespace {

constexpr unsigned whole_warp = 0xFFFFFFFFu;

mma::Unit named(const std::string& text) {
  const auto* found = std::find(std::begin(mma::unit_names), std::end(mma::unit_names), text);
  if (found == std::end(mma::unit_names))
    throw std::invalid_argument("GRADKERN_SIMT_ARCHITECTURE: no such unit: " + text);
  return static_cast<mma::Unit>(found - mma::unit_names);
}

std::atomic<mma::Unit>& imitated() {
  static std::atomic<mma::Unit> unit = [] {
    const char* text = std::getenv("GRADKERN_SIMT_ARCHITECTURE");
    return named(text ? text : "hopper");
  }();
  return unit;
}

struct Tile {  // the matrices of one mma, element by element, as bits; b by columns
  std::uint32_t a[16][32], b[8][32], c[16][8];
};

void multiply_add(const mma::Instruction& instruction, Tile& tile) {
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      tile.c[row][column] = mma::execute(instruction, tile.a[row], tile.b[column], instruction.k, tile.c[row][column]);
    }
  }
}

int bits_of(formats::FormatId id) { return static_cast<int>(8 * formats::container_bytes(id)); }

struct Fragments {
  const std::uint32_t *a, *b;
  std::uint32_t* accumulators;
};

template <class At>
void gather(const MmaShape& shape, At at, Tile& tile) {
  const int bits = bits_of(shape.a), each = 32 / bits, halves = shape.k / (4 * each);
  const auto element = [bits](std::uint32_t word, int e) {
    return word >> (e * bits) & static_cast<std::uint32_t>((std::uint64_t(1) << bits) - 1);
  };
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments& f = at(static_cast<unsigned>(lane));
    const int group = lane / 4, inner = lane % 4;
    for (int half = 0; half < halves; ++half) {
      for (int e = 0; e < each; ++e) {
        const int k = (4 * half + inner) * each + e;
        tile.a[group][k] = element(f.a[2 * half], e);
        tile.a[group + 8][k] = element(f.a[2 * half + 1], e);
        tile.b[group][k] = element(f.b[half], e);
      }
    }
    for (int i = 0; i < 4; ++i) tile.c[group + 8 * (i / 2)][2 * inner + i % 2] = f.accumulators[i];
  }
}

}  // namespace

void set_architecture(mma::Unit unit) { imitated() = unit; }
mma::Unit architecture() { return imitated(); }

void multiply_add(const Site& site, const MmaShape& shape, const std::uint32_t* a, const std::uint32_t* b,
                  std::uint32_t (&accumulators)[4]) {
  const mma::Unit unit = architecture();
  const mma::Instruction instruction = mma::find(unit, shape.a, shape.b, shape.accumulator, shape.k);
  if (!instruction.k) fail(site, std::string("no such instruction on ") + mma::unit_names[static_cast<int>(unit)]);
  Fragments mine{a, b, accumulators};
  warp_collective(site, whole_warp, mine, [&](auto at) {
    Tile tile;
    gather(shape, at, tile);
    multiply_add(instruction, tile);
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
