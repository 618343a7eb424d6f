// Operands of a matrix unit as its loop reads them: values in lanes, and beside them the exponents of their fields.
#pragma once

#include "cpu/pack.inl.hpp"
#include "mma/model.hpp"
#include "simd/truncation.hpp"

namespace gradkern::cpu {
namespace {

inline constexpr int float_panel = simd::vector_bytes, float_vectors = 4;        // columns: a vector of bytes
inline constexpr int double_panel = simd::vector_bytes / 2, double_vectors = 4;  // a vector of int16

// The exponent of x's field as the loop adds it; a zero's is below every sum of two others'.
GRADKERN_HD int packed_exponent(const ExponentRule& rule, float x) {
  const std::int32_t magnitude = base::bit_cast<std::int32_t>(x) & 0x7FFFFFFF;
  const int exponent = (magnitude >> 23) - 127;
  return magnitude == 0 ? rule.zero : (exponent > rule.floor ? exponent : rule.floor) + rule.bias;
}

// A chunk of k of some rows of a, and of one panel of b; products beyond the end of k are zero.
template <class T>
struct PackedPanel {
  using Exponent = std::conditional_t<sizeof(T) == 4, std::uint8_t, std::int16_t>;
  static constexpr int panel = sizeof(T) == 4 ? float_panel : double_panel;
  static constexpr std::uint32_t spread = sizeof(T) == 4 ? 0x01010101 : 0x00010001;  // a vector of one exponent
  T* a_values;
  std::int32_t* a_exponents;
  T* b_values;
  Exponent* b_exponents;
  float* loaded;                     // b as it is read
  std::int64_t start, count, depth;  // from which k, how many there are, and with the zeros
  bool halves;

  PackedPanel(char* scratch, const UnitProduct& u, std::int64_t k)
      : start(k), count(u.k - k < mma_depth ? u.k - k : mma_depth), halves(u.instruction.form == mma::Form::halves) {
    const std::int64_t step = halves ? u.instruction.k : u.instruction.step.products;
    depth = (count + step - 1) / step * step;
    const auto take = [&](auto*& part, std::int64_t size) {
      scratch = reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(scratch) + 63) / 64 * 64);
      part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(scratch);
      scratch += size * static_cast<std::int64_t>(sizeof *part);
    };
    take(b_values, mma_depth * panel);
    take(b_exponents, mma_depth * panel);
    take(loaded, mma_depth * panel);
    take(a_values, mma_rows * mma_depth);
    take(a_exponents, mma_rows * mma_depth);
  }

  GRADKERN_HD std::int64_t place(std::int64_t k) const {
    return halves ? k / 32 * 32 + mma::place_in_halves(static_cast<int>(k % 32)) : k;
  }

  void pack_a(const UnitProduct& u, std::int64_t first, std::int64_t rows) const {
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* source = u.a + (first + r) * u.a_row + start * u.a_step;
      for (std::int64_t k = 0; k < depth; ++k) {
        const float x = k < count ? source[k * u.a_step] : 0.0f;
        const std::int64_t at = r * mma_depth + place(k);
        a_values[at] = x;
        const auto exponent = static_cast<std::make_unsigned_t<Exponent>>(packed_exponent(u.a_rule, x));
        a_exponents[at] = static_cast<std::int32_t>(exponent * spread);
      }
    }
  }

  void pack_b(const UnitProduct& u, std::int64_t j, std::int64_t columns) const {
    const float* source = u.b + start * u.b_step + j * u.b_column;
    if (u.b_column == 1) {
      copy_rows<vec_f32, panel>(source, u.b_step, count, columns, loaded);
    } else {
      copy_columns<float, panel>(source, u.b_column, count, columns, loaded);
    }
    for (std::int64_t i = count * panel; i < depth * panel; ++i) loaded[i] = 0;
    for (std::int64_t k = 0; k < depth; ++k) {
      const float* from = loaded + k * panel;
      T* to = b_values + place(k) * panel;
      Exponent* exponents = b_exponents + place(k) * panel;
      for (int i = 0; i < panel; ++i) to[i] = from[i];
      for (int i = 0; i < panel; ++i) exponents[i] = static_cast<Exponent>(packed_exponent(u.b_rule, from[i]));
    }
  }
};

// Some rows and columns of c, which are float32 whatever the accumulator is.
struct PanelOfC {
  std::int64_t row, rows, column, columns;
  bool first, last;  // chunks of k

  void load(const UnitProduct& u, std::int64_t r, float* sums) const {
    const float* c = u.c + (row + r) * u.n + column;
    const bool starts = first && !u.continued;
    for (std::int64_t j = 0; j < columns; ++j) sums[j] = starts ? 0.0f : c[j];
    for (std::int64_t j = columns; j < float_panel; ++j) sums[j] = 0;
    if (!first) return;
    // As the unit has them: one NaN, and no -0, which any step makes +0.
    for (std::int64_t j = 0; j < columns; ++j) sums[j] = canonical(sums[j]);
  }

  // After the last step the bias is added, rounded once to the accumulator.
  void store(const UnitProduct& u, std::int64_t r, float* sums) const {
    float* c = u.c + (row + r) * u.n + column;
    if (last) {
      if (u.bias) add_bias(u, u.bias + (row + r) * u.bias_row + column, sums);
      for (std::int64_t j = 0; j < columns; ++j) sums[j] = canonical(sums[j]);
    }
    for (std::int64_t j = 0; j < columns; ++j) c[j] = sums[j];
  }

 private:
  static GRADKERN_HD float canonical(float x) {
    return x == x ? x + 0.0f : base::bit_cast<float>(mma::Hardware::nan(mma::Output::truncated));
  }

  // fp16 + fp16 in float32, then to fp16: the first rounding does no harm (24 >= 2 * 11 + 2).
  void add_bias(const UnitProduct& u, const float* bias, float* sums) const {
    constexpr int lanes = simd::vector_bytes / 4;
    for (std::int64_t j = 0; j < columns; ++j) sums[j] = sums[j] + bias[j];
    if (u.instruction.accumulate != formats::FormatId::float16) return;
    for (std::int64_t j = 0; j < columns; j += lanes) simd::round_to_f16(vec_f32::load(sums + j)).store(sums + j);
  }
};

}  // namespace
}  // namespace gradkern::cpu
