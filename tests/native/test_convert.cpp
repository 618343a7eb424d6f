// Conversions: every executor, thread count and mode against the reference loop, and the counts against plain counting.
// Tensors with and without special values, since blocks without take another way through the kernels.
#include "base/thread_pool.hpp"
#include "check.hpp"
#include "ref/convert.hpp"
#include "same.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using formats::Event;
using formats::Mode;
using formats::Overflow;
using formats::Rounding;
using formats::Subnormals;
using test::FormatId;
using test::modes;
using test::same;
using test::Tensor;

template <class F>
void compare(const executor::Executor& e, const Tensor& source, double scale, const Mode& mode,
             const ref::Converted<F>& truth) {
  std::vector<typename F::container> stored(source.values.size() + 1, typename F::container(0x5A));
  ops::RoundingCounts counts;
  e.convert(e, {source.size(), source.format, F::id, source.data(), stored.data(), scale, mode, 3, &counts});
  for (std::size_t i = 0; i < truth.stored.size(); ++i) {
    CHECK(stored[i] == truth.stored[i], e.name, test::name_of(source.format), F::name, source.values[i], scale);
  }
  CHECK(stored.back() == 0x5A, e.name, F::name, "wrote past the end");
  CHECK(same(counts, truth.counts), e.name, test::name_of(source.format), F::name, scale);
  std::vector<typename F::container> uncounted(stored.size(), typename F::container(0x5A));
  e.convert(e, {source.size(), source.format, F::id, source.data(), uncounted.data(), scale, mode, 3, nullptr});
  CHECK(uncounted == stored, e.name, test::name_of(source.format), F::name, scale);
}

// What the counts say, counted again from the values before and after.
template <class F>
void recount(const Tensor& source, double scale, const Mode& mode, const ref::Converted<F>& c) {
  using L = formats::Layout<F>;
  const double smallest_normal = formats::exp2i(L::min_exponent);
  const auto value = [](std::uint64_t pattern) {
    return formats::decode<F>(static_cast<typename F::container>(pattern << F::container_shift));
  };
  const double largest = value(L::max_finite);
  const double truncation_limit = largest + (largest - value(L::max_finite - 1));  // truncated, this is too large
  std::int64_t overflow = 0, flushed = 0, nan = 0, inf = 0, total = 0, first_overflow = -1;
  long double signal = 0, noise = 0;
  for (std::size_t i = 0; i < source.values.size(); ++i) {
    const double x = source.values[i], exact = x * scale, stored = formats::decode<F>(c.stored[i]);
    nan += std::isnan(x);
    inf += std::isinf(x);
    flushed += x != 0 && stored == 0;
    const bool truncates = mode.rounding == Rounding::toward_zero;
    if (std::isfinite(x) && (truncates ? std::fabs(exact) >= truncation_limit : !std::isfinite(stored))) {
      ++overflow;
      if (first_overflow < 0) first_overflow = static_cast<std::int64_t>(i);
    }
    if (mode.subnormals == Subnormals::flush)
      CHECK(!(stored != 0 && std::fabs(stored) < smallest_normal), F::name, exact);
    if (!std::isfinite(exact) || !std::isfinite(stored)) continue;
    signal += static_cast<long double>(exact) * exact;
    noise += (static_cast<long double>(stored) - exact) * (static_cast<long double>(stored) - exact);
  }
  const auto event = [&](Event which) { return c.counts.events[static_cast<int>(which)]; };
  for (const std::int64_t count : c.counts.events) total += count;
  CHECK(total == source.size(), F::name);
  CHECK(event(Event::nan) == nan && event(Event::inf) == inf && event(Event::flushed) == flushed, F::name, scale);
  if (mode.overflow == Overflow::ieee || mode.rounding == Rounding::toward_zero) {
    CHECK(event(Event::overflow) == overflow && c.counts.first_overflow == first_overflow, F::name, scale);
  }
  const auto total_of = [](const ops::SquareSum& s) {
    return std::ldexp(static_cast<long double>(s.big), 1200) + s.medium +
           std::ldexp(static_cast<long double>(s.small), -1200);
  };
  CHECK(std::fabs(total_of(c.counts.signal) - signal) <= 1e-12L * signal, F::name, scale);
  CHECK(std::fabs(total_of(c.counts.noise) - noise) <= 1e-12L * noise, F::name, scale);
  if (mode.rounding == Rounding::nearest_even && mode.overflow == Overflow::ieee && mode.subnormals == Subnormals::keep)
    CHECK(c.counts.max_ulp <= 0.5, F::name, c.counts.max_ulp);
}

void all_pairs(const std::vector<executor::Executor>& executors) {
  for (const FormatId from : test::all_formats) {
    auto values = test::random_values(51, 3001, -30, 20);
    test::sprinkle(values, from, 52, 60);
    const Tensor source = test::tensor(from, values);
    for (const FormatId to : test::all_formats) {
      formats::visit(to, [&](auto f) {
        using F = decltype(f);
        for (const Mode& mode : modes()) {
          for (const double scale : {1.0, 0x1p-12}) {
            const auto truth = ref::convert<F>(source.values, scale, mode, 3);
            recount(source, scale, mode, truth);
            for (const auto& e : executors) compare(e, source, scale, mode, truth);
          }
        }
      });
    }
  }
}

// Nearest-even, against the reference.
template <class F>
void all_modes(const std::vector<executor::Executor>& executors, const Tensor& source, double scale) {
  for (const Mode& mode : modes()) {
    if (mode.rounding != Rounding::nearest_even) continue;
    const auto truth = ref::convert<F>(source.values, scale, mode, 3);
    for (const auto& e : executors) compare(e, source, scale, mode, truth);
  }
}

// The same to every format.
void all_ways(const std::vector<executor::Executor>& executors, const Tensor& source,
              std::initializer_list<double> scales) {
  for (const FormatId to : test::all_formats)
    for (const double scale : scales)
      formats::visit(to, [&](auto f) { all_modes<decltype(f)>(executors, source, scale); });
}

void scales(const std::vector<executor::Executor>& executors) {
  for (const FormatId from : test::all_formats) {
    auto values = test::random_values(61, 3001, -12, 6);
    for (std::size_t i = 0; i < values.size(); i += 7) values[i] = i % 2 ? 0.0 : -0.0;
    all_ways(executors, test::tensor(from, values),
             {0x1p-140, 0x1p-126, 0x1p-40, 0x1p-12, 0x1p-3, 0.1, 1.0, 3.0, 0x1p9, 0x1p40, 0x1p126, 0x1p127, 1e300});
  }
}

// Exponents that no other format has, for which squares need their three ranges, and products that leave float64.
void far_exponents(const std::vector<executor::Executor>& executors) {
  for (const int low : {-1074, -490, -425, 0, 480, 1000}) {
    auto values = test::random_values(62, 2100, low, low < 0 ? low + 80 : low + 23);
    for (std::size_t i = 0; i < values.size(); i += 5) values[i] = test::random_double(63, i, -20, 10);
    all_ways(executors, test::tensor(FormatId::float64, values), {1.0, 0x1p-30, 0x1p30, 3.0});
  }
}

void every_pattern(const std::vector<executor::Executor>& executors) {
  for (const FormatId from : {FormatId::float16, FormatId::bfloat16, FormatId::float8_e4m3fn, FormatId::float8_e5m2}) {
    formats::visit(from, [&](auto f) {
      using F = decltype(f);
      Tensor t{from, {}, {}};
      for (std::uint32_t pattern = 0; pattern < (sizeof(typename F::container) == 1 ? 256u : 65536u); ++pattern) {
        const auto bits = static_cast<typename F::container>(pattern);
        t.values.push_back(formats::decode<F>(bits));
        for (std::size_t b = 0; b < sizeof bits; ++b) t.bytes.push_back(static_cast<std::uint8_t>(pattern >> (8 * b)));
      }
      all_ways(executors, t, {1.0, 0x1p-9, 0x1p12, 0.7});
    });
  }
}

// Every value of a format (every 37th of tfloat32), every midpoint, and their neighbours in the source.
void every_boundary(const std::vector<executor::Executor>& executors) {
  for (const FormatId to :
       {FormatId::tfloat32, FormatId::float16, FormatId::bfloat16, FormatId::float8_e4m3fn, FormatId::float8_e5m2}) {
    formats::visit(to, [&](auto f) {
      using F = decltype(f);
      using L = formats::Layout<F>;
      const auto value = [](std::uint64_t pattern) {
        return formats::decode<F>(static_cast<typename F::container>(pattern << F::container_shift));
      };
      std::vector<double> doubles, floats;
      for (std::uint64_t p = 0; p <= L::max_finite; p += to == FormatId::tfloat32 ? 37 : 1) {
        const double low = value(p), high = p < L::max_finite ? value(p + 1) : 2 * low - value(p - 1);
        for (const double x : {low, low + (high - low) / 2}) {
          const double signed_x = p % 2 ? -x : x;
          const auto narrow = static_cast<float>(signed_x);
          for (const double direction : {-double(INFINITY), 0.0, double(INFINITY)}) {
            doubles.push_back(direction == 0 ? signed_x : std::nextafter(signed_x, direction));
            const auto toward = static_cast<float>(direction);
            floats.push_back(direction == 0 ? narrow : std::nextafter(narrow, toward));
          }
        }
      }
      for (const auto& source : {test::tensor(FormatId::float64, doubles), test::tensor(FormatId::float32, floats)})
        all_modes<F>(executors, source, 1.0);
    });
  }
}

// One value that a block of float32 lanes does not take, in any position.
void one_special(const std::vector<executor::Executor>& executors) {
  const auto plain = test::random_values(64, 1100, -20, 5);
  const Mode mode{};
  for (const double special :
       {std::nan(""), -std::nan(""), double(INFINITY), -double(INFINITY), 65519.0, 65520.0, -1e30}) {
    for (std::size_t i = 0; i < plain.size(); i += i < 40 || i > 1010 ? 1 : 61) {
      auto values = plain;
      values[i] = special;
      const Tensor source = test::tensor(FormatId::float32, values);
      const auto truth = ref::convert<formats::float16>(source.values, 1.0, mode, 3);
      for (const auto& e : executors) compare(e, source, 1.0, mode, truth);
    }
  }
}

void block_edges(const std::vector<executor::Executor>& executors) {
  std::vector<std::int64_t> sizes = {511, 512, 513, 1023, 1024, 1025, 2047, 2048, 2049, 16383, 16384, 16385};
  for (std::int64_t size = 0; size <= 70; ++size) sizes.push_back(size);
  for (const std::int64_t size : sizes) {
    for (const FormatId from : {FormatId::float64, FormatId::float32, FormatId::float16, FormatId::float8_e5m2})
      all_ways(executors, test::tensor(from, test::random_values(65, size, -18, 8)), {1.0, 0.25});
  }
}

void chunk_boundaries(const std::vector<executor::Executor>& executors) {
  for (const std::int64_t size : {0, 1, 511, 512, 513, 16383, 16384, 16385, 50001}) {
    const Tensor source = test::tensor(FormatId::float32, test::random_values(53, size, -20, 18));
    for (const Rounding rounding : {Rounding::nearest_even, Rounding::stochastic}) {
      const Mode mode{rounding, Overflow::ieee, Subnormals::keep, 9};
      const auto truth = ref::convert<formats::float16>(source.values, 1.0, mode, 3);
      for (const int threads : {1, 2, 3, 7}) {
        base::set_num_threads(threads);
        for (const auto& e : executors) compare(e, source, 1.0, mode, truth);
      }
    }
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  const auto executors = gradkern::test::usable_executors();
  gradkern::all_pairs(executors);
  gradkern::scales(executors);
  gradkern::far_exponents(executors);
  gradkern::every_pattern(executors);
  gradkern::every_boundary(executors);
  gradkern::one_special(executors);
  gradkern::block_edges(executors);
  gradkern::chunk_boundaries(executors);
  return gradkern::test::report();
}
