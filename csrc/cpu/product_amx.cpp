// TDPBF16PS: two by two tiles of sums, one step of 32 products at a time.
#include <immintrin.h>

#include "cpu/bfloat.inl.hpp"

namespace gradkern::cpu {
namespace {

// Every tile 16 rows of 64 bytes.
struct TileConfiguration {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

class Tiles {
 public:
  Tiles() {
    const TileConfiguration configuration;
    _tile_loadconfig(&configuration);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

constexpr int row_of_panel = 4 * bfloat_columns;  // bytes

// Two tiles of rows, or one: then the second is the first again, and its sums are not used.
void multiply(const BfloatBlock& block, std::int64_t row_tile, std::int64_t rows, bool starts, float* sums) {
  const std::int64_t second = rows > tile_side ? row_tile + 1 : row_tile;
  float* const below = sums + tile_side * bfloat_columns;
  if (starts) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, row_of_panel);
    _tile_loadd(1, sums + tile_side, row_of_panel);
    _tile_loadd(2, below, row_of_panel);
    _tile_loadd(3, below + tile_side, row_of_panel);
  }
  for (std::int64_t step = 0; step < block.steps; ++step) {
    const std::uint32_t* b = block.b + step * tile_side * bfloat_columns;
    _tile_loadd(6, b, row_of_panel);
    _tile_loadd(4, block.tile(row_tile, step), 64);
    _tile_loadd(7, b + tile_side, row_of_panel);
    _tile_loadd(5, block.tile(second, step), 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, row_of_panel);
  _tile_stored(1, sums + tile_side, row_of_panel);
  _tile_stored(2, below, row_of_panel);
  _tile_stored(3, below + tile_side, row_of_panel);
}

}  // namespace

void amx_product(const BfloatProduct& p, const ProductRange& range, char* scratch) {
  const Tiles tiles;
  bfloat_product(p, range, scratch, multiply);
}

}  // namespace gradkern::cpu
