// Products on a matrix unit, bit for bit as mma/model.hpp: lanes run over the outputs of a row, each with its own E.
//
//   E = max over k of (exponent a[k] + exponent b[k, j]), and c's;  s = 2^(F - E)
//   d[j] = output( sum over k of trunc((a[k] b[k, j]) s) + trunc(c[j] s) ) 2^(E - F)
// In float32 lanes a b is exact (22 bits at most), times a power of two too, and the conversion to int32 is the
// truncation of the magnitude that the unit does; int32 sums are exact, and a lane whose sum leaves int32 is done again.
// The only rounding is the output's: to 24 bits toward zero, or to odd and then to float16. Exponents go in bytes.
// float64 lanes, for operands of any exponents, do the same in doubles that hold every sum exactly.
#pragma once

#include "cpu/mma_pack.inl.hpp"
#include "simd/lanes.hpp"

namespace gradkern::cpu {
namespace {

using mma::Output;
using simd::vec_i32;

// What a step's exponents are made of.
struct UnitStep {
  int fraction_bits, lowest, top_bias;  // of the sum of two packed exponents: its least, and what makes it a field
  int none;                             // the sum of packed exponents where every product is zero

  explicit UnitStep(const UnitProduct& p)
      : fraction_bits(p.instruction.step.fraction_bits),
        lowest(p.a_rule.zero_sum(p.b_rule)),
        top_bias(127 - p.a_rule.bias - p.b_rule.bias),
        none(lowest) {
    // In float32 lanes with a float32 accumulator no product is as small as the floor.
    const int floor = p.instruction.step.exponent_floor + p.a_rule.bias + p.b_rule.bias;
    if (p.wide || (p.instruction.step.output == Output::half && floor > lowest)) lowest = floor;
  }
};

// The low bits of a + b, and a sign where the sum left int32.
GRADKERN_HD vec_i32 add(vec_i32 a, vec_i32 b, vec_i32& overflow) {
  using unsigned_native = typename simd::vec<std::uint32_t, simd::vector_bytes / 4>::native;
  const vec_i32 sum = vec_i32::wrap((unsigned_native)a.v + (unsigned_native)b.v);
  overflow = overflow | ((a ^ sum) & (b ^ sum));
  return sum;
}

template <int count>
GRADKERN_HD vec_i32 sum_of_products(const float* a, const float* b, vec_f32 scale) {
  vec_i32 sum(0);
#pragma GCC unroll 16
  for (int k = 0; k < count; ++k) {
    const vec_f32 product = simd::broadcast(a + k) * vec_f32::load(b + k * float_panel);
    sum = sum + simd::truncate(product * scale);
  }
  return sum;
}

// One lane's step with a sum of any size; its exponent field e and scale are known.
template <int L, Output output>
__attribute__((noinline)) float wide_sum(const float* a, const float* b, float c, float scale, int quantum) {
  auto sum = static_cast<std::int64_t>(c * scale);
  for (int k = 0; k < L; ++k) sum += static_cast<std::int64_t>((a[k] * b[k * float_panel]) * scale);
  const std::uint32_t bits = mma::round_sum<mma::Hardware>(output, sum, quantum);
  if constexpr (output == Output::half)
    return static_cast<float>(formats::decode<formats::float16>(static_cast<std::uint16_t>(bits)));
  return base::bit_cast<float>(bits);
}

// d of one step, from c: the sums of packed exponents are in top.
template <int L, Output output>
GRADKERN_HD vec_f32 fused_step(const UnitStep& step, const float* a, const float* b, vec_i32 top, vec_f32 c) {
  const vec_i32 field = (to_bits(c) >> 23) & vec_i32(255);
  vec_i32 c_field = field;  // float16 does not normalise its subnormals, and drops a zero
  if constexpr (output == Output::half)
    c_field = select(field == vec_i32(0), vec_i32(0), max(field, vec_i32(127 - 14)));
  const vec_i32 e = max(top + vec_i32(step.top_bias), c_field);
  const vec_f32 scale = ops::from_bits<vec_f32>((vec_i32(254 + step.fraction_bits) - e) << 23);
  vec_i32 overflow(0);
  vec_i32 sum = sum_of_products<(L < 16 ? L : 16)>(a, b, scale);
  if constexpr (L == 32) sum = add(sum, sum_of_products<16>(a + 16, b + 16 * float_panel, scale), overflow);
  sum = add(sum, simd::truncate(c * scale), overflow);

  vec_f32 d = simd::to_f32_toward_zero(sum);
  if constexpr (output == Output::half) {
    const vec_i32 inexact = simd::truncate(d) != sum;
    d = ops::from_bits<vec_f32>(to_bits(d) | (inexact & vec_i32(1)));
  }
  d = d * ops::from_bits<vec_f32>((e - vec_i32(step.fraction_bits)) << 23);
  if constexpr (output == Output::half) d = simd::round_to_f16(d);
  if constexpr (L >= 16) {
    for (unsigned lanes = simd::lanes_of(overflow); lanes; lanes &= lanes - 1) {
      const int i = __builtin_ctz(lanes);
      d.v[i] = wide_sum<L, output>(a, b + i, c.v[i], scale.v[i], e.v[i] - 127 - step.fraction_bits);
    }
  }
  d = select(top == vec_i32(step.none), c, d);  // no product: c goes on
  d = select(field == vec_i32(255), c, d);      // and so does an infinite one
  if constexpr (output == Output::truncated13) d = ops::from_bits<vec_f32>(to_bits(d) & vec_i32(~0x3FF));
  return d;
}

// The largest sum of exponents of each column, in memory, for float_vectors vectors.
template <int L>
GRADKERN_HD void top_exponents(const UnitStep& step, const std::int32_t* a, const std::uint8_t* b, std::uint8_t* top) {
  using simd::bytes;
  bytes largest(static_cast<std::uint8_t>(step.lowest));
#pragma GCC unroll 32
  for (int k = 0; k < L; ++k) {
    const auto left = bytes::wrap(simd::broadcast(a + k).v);
    largest = max(largest, left + bytes::load(b + k * float_panel));
  }
  largest.store(top);
}

// One row of a panel through a chunk.
template <int L, Output output, bool halves>
GRADKERN_HD void row_of_panel(const UnitStep& step, const PackedPanel<float>& p, std::int64_t row, int vectors,
                              float* c) {
  constexpr int lanes = simd::vector_bytes / 4;
  const float* a = p.a_values + row * mma_depth;
  const std::int32_t* a_exponents = p.a_exponents + row * mma_depth;
  alignas(64) std::uint8_t top[float_panel];
  vec_f32 sum[float_vectors], part[float_vectors];
  for (int v = 0; v < vectors; ++v) sum[v] = vec_f32::load(c + v * lanes);
  for (std::int64_t k = 0; k < p.depth; k += L) {
    top_exponents<L>(step, a_exponents + k, p.b_exponents + k * float_panel, top);
    for (int v = 0; v < vectors; ++v) {
      const vec_i32 exponents = simd::load_lanes(top + v * lanes);
      const float* b = p.b_values + k * float_panel + v * lanes;
      if constexpr (halves) {
        const bool first = k % (2 * L) == 0;
        part[v] = fused_step<L, output>(step, a + k, b, exponents, first ? vec_f32(0.0f) : part[v]);
        if (!first) {
          sum[v] = sum[v] + part[v];
          if constexpr (output == Output::half) sum[v] = simd::round_to_f16(sum[v]);
        }
      } else {
        sum[v] = fused_step<L, output>(step, a + k, b, exponents, sum[v]);
      }
    }
  }
  for (int v = 0; v < vectors; ++v) sum[v].store(c + v * lanes);
}

// float64 lanes, output truncated to float32.
template <int L>
GRADKERN_HD vec_f64 fused_step(const UnitStep& step, const double* a, const double* b, const std::int16_t* top,
                               vec_f64 c) {
  using I = ops::int_t<vec_f64>;
  constexpr int lanes = simd::vector_bytes / 8;
  typedef std::int16_t shorts __attribute__((vector_size(2 * lanes)));
  shorts narrow;
  __builtin_memcpy(&narrow, top, sizeof narrow);
  const auto products = I::wrap(__builtin_convertvector(narrow, typename I::native));
  const I raw = ((to_bits(c) >> 52) & I(2047)) - I(1023);
  const I c_exponent = select(c == vec_f64(0.0), I(-2000), max(raw, I(-126)));
  const I e = max(products, c_exponent);
  const vec_f64 scale = ops::from_bits<vec_f64>((I(1023 + step.fraction_bits) - e) << 52);
  vec_f64 sum = simd::truncate(c * scale);
#pragma GCC unroll 16
  for (int k = 0; k < L; ++k) {
    const vec_f64 product = simd::broadcast(a + k) * vec_f64::load(b + k * double_panel);
    sum = sum + simd::truncate(product * scale);
  }
  const vec_f64 d = sum * ops::from_bits<vec_f64>((e + I(1023 - step.fraction_bits)) << 52);
  const vec_f64 magnitude = ops::abs(d);
  const vec_f64 normal = ops::from_bits<vec_f64>(to_bits(d) & I(~((std::int64_t(1) << 29) - 1)));
  const vec_f64 subnormal = simd::truncate(min(max(d, vec_f64(-1.0)), vec_f64(1.0)) * vec_f64(0x1p149));
  const vec_f64 tiny = select(magnitude < vec_f64(0x1p-126), subnormal * vec_f64(0x1p-149), normal);
  return select(magnitude >= vec_f64(0x1p128), ops::copysign(vec_f64(__builtin_inf()), d), tiny);
}

template <int L>
GRADKERN_HD void row_of_panel(const UnitStep& step, const PackedPanel<double>& p, std::int64_t row, int vectors,
                              float* c) {
  constexpr int lanes = simd::vector_bytes / 8;
  using shorts = simd::vec<std::int16_t, double_panel>;
  const double* a = p.a_values + row * mma_depth;
  const std::int32_t* a_exponents = p.a_exponents + row * mma_depth;
  alignas(64) std::int16_t top[double_panel];
  vec_f64 sum[double_vectors];
  for (int v = 0; v < vectors; ++v) sum[v] = simd::widen(c + v * lanes);
  for (std::int64_t k = 0; k < p.depth; k += L) {
    shorts largest(static_cast<std::int16_t>(step.lowest));
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
      const auto left = shorts::wrap(simd::broadcast(a_exponents + k + i).v);
      largest = max(largest, left + shorts::load(p.b_exponents + (k + i) * double_panel));
    }
    largest.store(top);
    for (int v = 0; v < vectors; ++v)
      sum[v] = fused_step<L>(step, a + k, p.b_values + k * double_panel + v * lanes, top + v * lanes, sum[v]);
  }
  for (int v = 0; v < vectors; ++v) simd::narrow(c + v * lanes, sum[v]);
}

// Not inlined: one a kind of step.
template <class T, int L, Output output, bool halves>
__attribute__((noinline)) void rows_of_panel(const UnitStep& step, const UnitProduct& u, const PackedPanel<T>& p,
                                             const PanelOfC& c) {
  constexpr int lanes = simd::vector_bytes / static_cast<int>(sizeof(T));
  const int vectors = static_cast<int>((c.columns + lanes - 1) / lanes);
  for (std::int64_t row = 0; row < c.rows; ++row) {
    alignas(64) float sums[float_panel];
    c.load(u, row, sums);
    if constexpr (sizeof(T) == 4) {
      row_of_panel<L, output, halves>(step, p, row, vectors, sums);
    } else {
      row_of_panel<L>(step, p, row, vectors, sums);
    }
    c.store(u, row, sums);
  }
}

template <class T>
using RowsOfPanel = void (*)(const UnitStep&, const UnitProduct&, const PackedPanel<T>&, const PanelOfC&);

RowsOfPanel<float> float_rows(const mma::Instruction& i) {
  const auto by_output = [&](auto products, auto halves) -> RowsOfPanel<float> {
    constexpr int L = decltype(products)::value;
    constexpr bool h = decltype(halves)::value;
    if (i.step.output == Output::half) return rows_of_panel<float, L, Output::half, h>;
    if constexpr (L >= 16 && !h)
      if (i.step.output == Output::truncated13) return rows_of_panel<float, L, Output::truncated13, false>;
    return rows_of_panel<float, L, Output::truncated, h>;
  };
  if (i.form == mma::Form::halves) return by_output(std::integral_constant<int, 16>{}, std::true_type{});
  switch (i.step.products) {
    case 4:
      return by_output(std::integral_constant<int, 4>{}, std::false_type{});
    case 8:
      return by_output(std::integral_constant<int, 8>{}, std::false_type{});
    case 16:
      return by_output(std::integral_constant<int, 16>{}, std::false_type{});
    default:
      return by_output(std::integral_constant<int, 32>{}, std::false_type{});
  }
}

RowsOfPanel<double> double_rows(const mma::Instruction& i) {
  if (i.step.products == 4) return rows_of_panel<double, 4, Output::truncated, false>;
  if (i.step.products == 8) return rows_of_panel<double, 8, Output::truncated, false>;
  return rows_of_panel<double, 16, Output::truncated, false>;
}

template <class T>
void unit_product_in(const UnitProduct& u, const ProductRange& range, RowsOfPanel<T> rows_of, char* scratch) {
  constexpr int panel = sizeof(T) == 4 ? float_panel : double_panel;
  const UnitStep step(u);
  for (std::int64_t i = range.row_begin; i < range.row_end; i += mma_rows) {
    const std::int64_t rows = range.row_end - i < mma_rows ? range.row_end - i : mma_rows;
    std::int64_t k = 0;
    do {
      PackedPanel<T> packed(scratch, u, k);
      packed.pack_a(u, i, rows);
      for (std::int64_t j = range.column_begin; j < range.column_end; j += panel) {
        const std::int64_t columns = range.column_end - j < panel ? range.column_end - j : panel;
        packed.pack_b(u, j, columns);
        rows_of(step, u, packed, {i, rows, j, columns, k == 0, k + mma_depth >= u.k});
      }
      k += mma_depth;
    } while (k < u.k);
  }
}

// The caller has the thread round to nearest even and keep subnormals.
void unit_product(const UnitProduct& u, const ProductRange& range, char* scratch) {
  if (u.wide) return unit_product_in<double>(u, range, double_rows(u.instruction), scratch);
  unit_product_in<float>(u, range, float_rows(u.instruction), scratch);
}

}  // namespace
}  // namespace gradkern::cpu
