// mma.sync of every shape and type: products of small integers, which no unit rounds, against a plain product; products
// of arbitrary patterns against the model of the unit. And fma on bits, against exact integers.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "check.hpp"
#include "formats/decode.hpp"
#include "formats/encode.hpp"
#include "kernel_array.hpp"
#include "mma/model.hpp"
#include "simt_kernels.hpp"
#include "simt_matrix_kernels.hpp"

namespace gradkern::test {
namespace {

template <class F>
std::uint32_t bits_of(int value) {
  return encode<F>(value, Mode{}).bits;
}

template <class A, class B, int k, bool half>
void test_integers() {
  using C = std::conditional_t<half, float16, float32>;
  Array<std::uint32_t> a(16 * k), b(k * 8), c(128), d(128);
  const auto small = [](std::uint64_t i) { return static_cast<int>(noise(i) % 9) - 4; };
  for (unsigned i = 0; i < a.size(); ++i) a[i] = bits_of<A>(small(i));
  for (unsigned i = 0; i < b.size(); ++i) b[i] = bits_of<B>(small(1000 + i));
  for (unsigned i = 0; i < c.size(); ++i) c[i] = bits_of<C>(small(2000 + i));
  RUN(product<A, B, k, half>, 1, 32, 0, stream_t{}, a.data(), b.data(), c.data(), d.data());
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned column = 0; column < 8; ++column) {
      int sum = small(2000 + row * 8 + column);
      for (unsigned i = 0; i < k; ++i) sum += small(row * k + i) * small(1000 + i * 8 + column);
      CHECK(d[row * 8 + column] == bits_of<C>(sum), A::name, B::name, k, half, row, column);
    }
  }
}

// Patterns whose exponents lie near 1, so that sums round; every 16th is any pattern, NaN and infinities included.
template <class F>
std::uint32_t pattern(std::uint64_t i) {
  using L = Layout<F>;
  const std::uint32_t any = noise(2 * i) | noise(2 * i + 1) << 16;
  const std::uint64_t near_one = static_cast<std::uint64_t>(F::bias - 3 + any % 7) << L::fraction_bits;
  const std::uint64_t fraction = (any >> 8) & (L::smallest_normal - 1), sign = any >> 7 & 1 ? L::sign : 0;
  const std::uint64_t bits = i % 16 == 5 && i % 3 ? any & (2 * L::sign - 1) : sign | near_one | fraction;
  return static_cast<std::uint32_t>(bits << F::container_shift) | (F::container_shift ? any & 0x1FFF : 0);
}

template <class A, class B, int k, bool half>
void test_patterns(mma::Unit unit) {
  using C = std::conditional_t<half, float16, float32>;
  const mma::Instruction instruction = mma::find(unit, A::id, B::id, C::id, k);
  for (std::uint64_t round = 0; round < 20; ++round) {
    Array<std::uint32_t> a(16 * k), b(k * 8), c(128), d(128);
    for (unsigned i = 0; i < a.size(); ++i) a[i] = pattern<A>(round * 9000 + i);
    for (unsigned i = 0; i < b.size(); ++i) b[i] = pattern<B>(round * 9000 + 3000 + i);
    for (unsigned i = 0; i < c.size(); ++i) c[i] = pattern<C>(round * 9000 + 6000 + i);
    RUN(product<A, B, k, half>, 1, 32, 0, stream_t{}, a.data(), b.data(), c.data(), d.data());
    for (unsigned i = 0; i < 128; ++i) {
      std::uint32_t column[k];
      for (unsigned j = 0; j < k; ++j) column[j] = b[j * 8 + i % 8];
      const std::uint32_t expected = mma::execute(instruction, a.data() + i / 8 * k, column, k, c[i]);
      CHECK(d[i] == expected, A::name, B::name, k, half, static_cast<int>(unit), i, d[i], expected);
    }
  }
}

template <class A, class B, int k, bool half>
void test_product(mma::Unit unit) {
  test_integers<A, B, k, half>();
  test_patterns<A, B, k, half>(unit);
}

void test_unit(mma::Unit unit, bool has_float8) {
  test_product<float16, float16, 16, false>(unit);
  test_product<float16, float16, 16, true>(unit);
  test_product<float16, float16, 8, false>(unit);
  test_product<float16, float16, 8, true>(unit);
  test_product<bfloat16, bfloat16, 16, false>(unit);
  test_product<bfloat16, bfloat16, 8, false>(unit);
  test_product<tfloat32, tfloat32, 8, false>(unit);
  test_product<tfloat32, tfloat32, 4, false>(unit);
  if (!has_float8) return;
  test_product<float8_e4m3fn, float8_e4m3fn, 32, false>(unit);
  test_product<float8_e4m3fn, float8_e5m2, 32, false>(unit);
  test_product<float8_e5m2, float8_e4m3fn, 32, false>(unit);
  test_product<float8_e5m2, float8_e5m2, 32, false>(unit);
  test_product<float8_e4m3fn, float8_e4m3fn, 32, true>(unit);
  test_product<float8_e5m2, float8_e4m3fn, 32, true>(unit);
}

// sum * 2^-unit rounded to nearest even with p bits and quanta of at least 2^least; |sum| < 2^62.
double rounded(long long sum, int unit, int p, int least) {
  const long long magnitude = std::llabs(sum);
  if (!magnitude) return 0;
  const int leading = 63 - __builtin_clzll(static_cast<unsigned long long>(magnitude));
  const int shift = std::max(leading - (p - 1), least + unit);
  if (shift <= 0) return std::ldexp(static_cast<double>(sum), -unit);
  long long kept = magnitude >> shift;
  const long long rest = magnitude - (kept << shift), half_way = 1ll << (shift - 1);
  kept += rest > half_way || (rest == half_way && (kept & 1));
  return std::copysign(std::ldexp(static_cast<double>(kept), shift - unit), static_cast<double>(sum));
}

// Factors in [2^-8, 2^4) and addends down to float16's subnormals: every sum is an integer multiple of 2^-40.
void test_half_fma() {
  constexpr int count = 4096, unit = 40;
  Array<std::uint16_t> x(3 * count), float16s(count), bfloat16s(count);
  const auto run_with = [&](auto f, Array<std::uint16_t>& results) {
    using F = decltype(f);
    using L = Layout<F>;
    for (unsigned i = 0; i < 3 * count; ++i) {
      const int exponent = i % 3 == 2 ? static_cast<int>(noise(i) % 25) - 20 : static_cast<int>(noise(i) % 11) - 8;
      const double fraction =
          1 + static_cast<double>(noise(i + 7) % (1u << L::fraction_bits)) / (1 << L::fraction_bits);
      x[i] = encode<F>(std::ldexp(noise(i + 5) % 2 ? fraction : -fraction, exponent), Mode{}).bits;
    }
    RUN(half_fma, count / 64, 64, 0, stream_t{}, x.data(), float16s.data(), bfloat16s.data());
    int inexact = 0;
    for (unsigned i = 0; i < count; ++i) {
      const double factors = decode<F>(x[3 * i]) * decode<F>(x[3 * i + 1]);
      const auto sum = static_cast<long long>(std::ldexp(factors, unit)) +
                       static_cast<long long>(std::ldexp(decode<F>(x[3 * i + 2]), unit));
      const double expected = rounded(sum, unit, F::significand_bits, L::min_quantum);
      CHECK(decode<F>(results[i]) == expected, F::name, i, expected, decode<F>(results[i]));
      inexact += std::ldexp(expected, unit) != static_cast<double>(sum);
    }
    CHECK(inexact > count / 4, F::name, inexact);
  };
  run_with(float16{}, float16s);
  run_with(bfloat16{}, bfloat16s);
}

struct Special {
  std::uint16_t x, y, z, float16_result, bfloat16_result;
};

// Infinities, NaN, signed zeros, overflow, subnormals; patterns mean other numbers in the two formats.
void test_special_fma() {
  const Special cases[] = {
      {0x7C00, 0x0000, 0x3C00, 0x7E00, 0x3C00},  // inf * 0 + 1
      {0xFFFF, 0x3C00, 0x3C00, 0x7E00, 0x7FC0},  // NaN with a sign and a payload
      {0x7BFF, 0x7BFF, 0x0000, 0x7C00, 0x7F80},  // overflow
      {0x8000, 0x0001, 0x8000, 0x8000, 0x8000},  // -0 * tiny - 0
      {0x0001, 0x3C00, 0x0001, 0x0002, 0x0001},  // the smallest float16 twice
      {0x0001, 0x0001, 0x8000, 0x0000, 0x0000},  // underflow to +0
      {0x3F80, 0x0001, 0x0000, 0x0002, 0x0001},  // float16: 1.875 times the smallest; bfloat16: 1 times it
  };
  constexpr unsigned count = std::size(cases);
  Array<std::uint16_t> x(3 * count), float16s(count), bfloat16s(count);
  for (unsigned i = 0; i < count; ++i) x[3 * i] = cases[i].x, x[3 * i + 1] = cases[i].y, x[3 * i + 2] = cases[i].z;
  RUN(half_fma, 1, count, 0, stream_t{}, x.data(), float16s.data(), bfloat16s.data());
  for (unsigned i = 0; i < count; ++i) {
    CHECK(float16s[i] == cases[i].float16_result, i, float16s[i]);
    CHECK(bfloat16s[i] == cases[i].bfloat16_result, i, bfloat16s[i]);
  }
}

}  // namespace
}  // namespace gradkern::test

int main() {
  using gradkern::mma::Unit;
#if defined(__CUDACC__)
  gradkern::test::test_unit(Unit::hopper, true);
#else
  for (const Unit unit : {Unit::ampere, Unit::ada, Unit::hopper, Unit::blackwell, Unit::rtx_blackwell}) {
    gradkern::simt::set_architecture(unit);
    gradkern::test::test_unit(unit, unit != Unit::ampere);
  }
#endif
  gradkern::test::test_half_fma();
  gradkern::test::test_special_fma();
  return gradkern::test::report();
}
