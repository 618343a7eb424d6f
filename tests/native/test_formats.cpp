// Decoding and encoding: every bit pattern of every format up to 19 bits, every gap between neighbours, every rounding.
#include "check.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using formats::decode;
using formats::encode;
using formats::Event;
using formats::Layout;
using formats::Mode;
using formats::Overflow;
using formats::Rounding;
using formats::Subnormals;

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr std::uint64_t all_ones = ~std::uint64_t(0);

template <class F>
double value(std::uint64_t pattern) {
  return decode<F>(static_cast<typename F::container>(pattern << F::container_shift));
}

template <class F>
double rounded(double x, const Mode& mode = {}, std::uint64_t random = 0) {
  return decode<F>(encode<F>(x, mode, random).bits);
}

template <class F>
void round_trip() {
  using L = Layout<F>;
  for (std::uint64_t pattern = 0; pattern < std::uint64_t(1) << L::bits; ++pattern) {
    const auto stored = static_cast<typename F::container>(pattern << F::container_shift);
    const std::uint64_t magnitude = pattern & (L::sign - 1);
    const double x = value<F>(pattern);
    const bool is_inf = F::has_inf && magnitude == L::infinity, is_nan = magnitude > L::max_finite && !is_inf;
    CHECK(std::signbit(x) == ((pattern & L::sign) != 0), F::name, pattern);
    CHECK(std::isnan(x) == is_nan && std::isinf(x) == is_inf, F::name, pattern);
    for (const Rounding rounding : {Rounding::nearest_even, Rounding::toward_zero, Rounding::stochastic}) {
      for (const std::uint64_t random : {std::uint64_t(0), all_ones}) {
        const auto back = encode<F>(x, {rounding, Overflow::ieee, Subnormals::keep, 0}, random);
        const std::uint64_t quiet = (pattern & L::sign) | L::quiet_nan;
        CHECK(back.bits == (is_nan ? static_cast<typename F::container>(quiet << F::container_shift) : stored), F::name,
              pattern);
        CHECK(!back.changed, F::name, pattern);
        const Event expected = is_nan                                             ? Event::nan
                               : is_inf                                           ? Event::inf
                               : magnitude != 0 && magnitude < L::smallest_normal ? Event::subnormal
                                                                                  : Event::exact;
        CHECK(back.event == expected, F::name, pattern);
      }
    }
    const double flushed = rounded<F>(x, {Rounding::nearest_even, Overflow::ieee, Subnormals::flush, 0});
    const bool small = magnitude < L::smallest_normal;
    CHECK(is_nan ? std::isnan(flushed) : test::same(flushed, small ? std::copysign(0.0, x) : x), F::name, pattern);
  }
}

// Rounding between each pair of neighbours, whose midpoint is a double.
template <class F>
void gaps() {
  using L = Layout<F>;
  for (std::uint64_t low_bits = 0; low_bits < L::max_finite; ++low_bits) {
    const double low = value<F>(low_bits), high = value<F>(low_bits + 1), middle = low + (high - low) / 2;
    CHECK(low < high, F::name, low_bits);
    for (const double sign : {1.0, -1.0}) {
      const auto nearest = [&](double x) { return sign * rounded<F>(sign * x); };
      CHECK(nearest(middle) == (low_bits % 2 == 0 ? low : high), F::name, low_bits);
      CHECK(nearest(std::nextafter(middle, 0)) == low, F::name, low_bits);
      CHECK(nearest(std::nextafter(middle, inf)) == high, F::name, low_bits);
      for (const double x : {middle, std::nextafter(low, inf), std::nextafter(high, 0)}) {
        const Mode truncate{Rounding::toward_zero, Overflow::ieee, Subnormals::keep, 0};
        CHECK(sign * rounded<F>(sign * x, truncate) == low, F::name, low_bits);
      }
      // A quarter of the way up: exactly the draws below 2^62 go up.
      const Mode dither{Rounding::stochastic, Overflow::ieee, Subnormals::keep, 0};
      const double quarter = sign * (low + (high - low) / 4);
      CHECK(sign * rounded<F>(quarter, dither, (std::uint64_t(1) << 62) - 1) == high, F::name, low_bits);
      CHECK(sign * rounded<F>(quarter, dither, std::uint64_t(1) << 62) == low, F::name, low_bits);
    }
  }
}

struct Threshold {
  double largest, overflows_at, smallest_normal, smallest_subnormal, rounds_to_zero_at;
};

// The table of the arithmetic contract.
template <class F>
void thresholds(const Threshold& t) {
  using L = Layout<F>;
  CHECK(value<F>(L::max_finite) == t.largest, F::name);
  CHECK(value<F>(L::smallest_normal) == t.smallest_normal, F::name);
  CHECK(value<F>(1) == t.smallest_subnormal, F::name);
  for (const double sign : {1.0, -1.0}) {
    const auto at = encode<F>(sign * t.overflows_at, {});
    CHECK(at.event == Event::overflow && at.changed, F::name);
    CHECK(F::has_inf ? decode<F>(at.bits) == sign * inf : std::isnan(decode<F>(at.bits)), F::name);
    const auto below = encode<F>(sign * std::nextafter(t.overflows_at, 0), {});
    CHECK(below.event == Event::inexact && decode<F>(below.bits) == sign * t.largest, F::name);
    const auto tie = encode<F>(sign * t.rounds_to_zero_at, {});
    CHECK(tie.event == Event::flushed && tie.changed, F::name);
    CHECK(test::same(decode<F>(tie.bits), sign * 0.0), F::name);
    const auto above = encode<F>(sign * std::nextafter(t.rounds_to_zero_at, 1), {});
    CHECK(above.event == Event::subnormal && decode<F>(above.bits) == sign * t.smallest_subnormal, F::name);
  }
}

template <class F>
void overflow_modes() {
  const double largest = value<F>(Layout<F>::max_finite);
  const Mode saturate{Rounding::nearest_even, Overflow::saturate, Subnormals::keep, 0};
  const Mode truncate{Rounding::toward_zero, Overflow::ieee, Subnormals::keep, 0};
  for (const double x : {largest * 2, 1e300}) {
    for (const double sign : {1.0, -1.0}) {
      for (const Mode& mode : {saturate, truncate}) {
        const auto clamped = encode<F>(sign * x, mode);
        CHECK(clamped.event == Event::overflow && decode<F>(clamped.bits) == sign * largest, F::name, x);
      }
      const double infinite = rounded<F>(sign * inf, saturate);
      CHECK(F::has_inf ? infinite == sign * inf : std::isnan(infinite), F::name);
    }
  }
}

template <class F>
void stochastic_mean() {
  const double low = value<F>(Layout<F>::smallest_normal + 1), high = value<F>(Layout<F>::smallest_normal + 2);
  for (const double fraction : {0.015625, 0.25, 0.5, 0.9375}) {
    const Mode dither{Rounding::stochastic, Overflow::ieee, Subnormals::keep, 0};
    const double x = low + fraction * (high - low);
    const int draws = 20000;
    int up = 0;
    for (int i = 0; i < draws; ++i) {
      const std::uint64_t random = formats::random_bits(7, static_cast<std::uint64_t>(i));
      const double y = rounded<F>(x, dither, random);
      CHECK(y == low || y == high, F::name, fraction);
      CHECK(y == rounded<F>(x, dither, random), F::name, fraction);
      up += y == high;
    }
    const double deviation = std::sqrt(draws * fraction * (1 - fraction));
    CHECK(std::fabs(up - draws * fraction) < 5 * deviation, F::name, fraction, up);
  }
}

template <class F>
void narrow() {
  round_trip<F>();
  gaps<F>();
  overflow_modes<F>();
  stochastic_mean<F>();
}

// float32 is what the processor itself rounds to.
void against_hardware() {
  for (std::uint64_t i = 0; i < 300000; ++i) {
    const double x = test::random_double(11, i, -160, 130);
    CHECK(test::same(rounded<formats::float32>(x), static_cast<double>(static_cast<float>(x))), x);
    CHECK(encode<formats::float64>(x, {}).bits == std::bit_cast<std::uint64_t>(x), x);
    // Rounded to a random float16-like tie first, so that ties are not rare.
    const double tie = static_cast<float>(x) * (1 + 0x1p-24);
    CHECK(test::same(rounded<formats::float32>(tie), static_cast<double>(static_cast<float>(tie))), tie);
  }
  for (const double x : test::special_values(formats::FormatId::float64)) {
    CHECK(test::same(rounded<formats::float64>(x), x), x);
    CHECK(test::same(rounded<formats::float32>(x), static_cast<double>(static_cast<float>(x))), x);
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  narrow<formats::tfloat32>();
  narrow<formats::float16>();
  narrow<formats::bfloat16>();
  narrow<formats::float8_e4m3fn>();
  narrow<formats::float8_e5m2>();
  overflow_modes<formats::float32>();
  stochastic_mean<formats::float32>();
  against_hardware();
  thresholds<formats::float32>({0x1.fffffep127, 0x1p128 - 0x1p103, 0x1p-126, 0x1p-149, 0x1p-150});
  thresholds<formats::tfloat32>({0x1.ffcp127, 0x1.ffep127, 0x1p-126, 0x1p-136, 0x1p-137});
  thresholds<formats::bfloat16>({0x1.fep127, 0x1.ffp127, 0x1p-126, 0x1p-133, 0x1p-134});
  thresholds<formats::float16>({65504, 65520, 0x1p-14, 0x1p-24, 0x1p-25});
  thresholds<formats::float8_e5m2>({57344, 61440, 0x1p-14, 0x1p-16, 0x1p-17});
  thresholds<formats::float8_e4m3fn>({448, std::nextafter(464.0, 500.0), 0x1p-6, 0x1p-9, 0x1p-10});
  return test::report();
}
