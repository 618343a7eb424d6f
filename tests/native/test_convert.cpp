// Conversions: every executor, thread count and mode against the reference loop, and the counts against plain counting.
#include "base/thread_pool.hpp"
#include "check.hpp"
#include "ref/convert.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using formats::Event;
using formats::Mode;
using formats::Overflow;
using formats::Rounding;
using formats::Subnormals;
using test::FormatId;
using test::Tensor;

std::vector<Mode> modes() {
  std::vector<Mode> list;
  for (const Rounding rounding : {Rounding::nearest_even, Rounding::toward_zero, Rounding::stochastic})
    for (const Overflow overflow : {Overflow::ieee, Overflow::saturate})
      for (const Subnormals subnormals : {Subnormals::keep, Subnormals::flush})
        list.push_back({rounding, overflow, subnormals, 42});
  return list;
}

bool same(const ops::SquareSum& a, const ops::SquareSum& b) {
  return test::same(a.big, b.big) && test::same(a.medium, b.medium) && test::same(a.small, b.small);
}

bool same(const ops::RoundingCounts& a, const ops::RoundingCounts& b) {
  for (int event = 0; event < formats::event_count; ++event)
    if (a.events[event] != b.events[event]) return false;
  return a.first_overflow == b.first_overflow && a.first_flushed == b.first_flushed &&
         test::same(a.max_ulp, b.max_ulp) && same(a.signal, b.signal) && same(a.noise, b.noise);
}

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

void chunk_boundaries(const std::vector<executor::Executor>& executors) {
  for (const std::int64_t size : {0, 1, 511, 512, 513, 16383, 16384, 16385, 50001}) {
    const Tensor source = test::tensor(FormatId::float32, test::random_values(53, size, -20, 18));
    const Mode dither{Rounding::stochastic, Overflow::ieee, Subnormals::keep, 9};
    const auto truth = ref::convert<formats::float16>(source.values, 1.0, dither, 3);
    for (const int threads : {1, 2, 3, 7}) {
      base::set_num_threads(threads);
      for (const auto& e : executors) compare(e, source, 1.0, dither, truth);
    }
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  const auto executors = gradkern::test::usable_executors();
  gradkern::all_pairs(executors);
  gradkern::chunk_boundaries(executors);
  return gradkern::test::report();
}
