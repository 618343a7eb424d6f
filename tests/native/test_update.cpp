// Descent steps: every executor, thread count, mode and pair of formats against the reference loop, and its counts
// against plain counting. Tensors with and without special values, since blocks without take another way.
#include "base/thread_pool.hpp"
#include "check.hpp"
#include "ref/update.hpp"
#include "same.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using formats::Mode;
using formats::Overflow;
using formats::Rounding;
using formats::Subnormals;
using test::FormatId;
using test::modes;
using test::same;
using test::Tensor;

template <class F>
void compare(const executor::Executor& e, const Tensor& weight, const Tensor& gradient, double rate, const Mode& mode,
             const ref::Updated<F>& truth, bool in_place) {
  std::vector<typename F::container> stored(weight.values.size() + 1, typename F::container(0x5A));
  if (in_place && weight.size()) __builtin_memcpy(stored.data(), weight.data(), weight.bytes.size());
  ops::UpdateCounts counts;
  const void* source = in_place ? stored.data() : weight.data();
  e.update(e, {weight.size(), F::id, source, gradient.format, gradient.data(), stored.data(), rate, mode, 3, &counts});
  for (std::size_t i = 0; i < truth.stored.size(); ++i) {
    CHECK(stored[i] == truth.stored[i], e.name, F::name, test::name_of(gradient.format), weight.values[i],
          gradient.values[i], rate);
  }
  CHECK(stored.back() == 0x5A, e.name, F::name, "wrote past the end");
  CHECK(same(counts, truth.counts), e.name, F::name, test::name_of(gradient.format), rate);
}

// What the counts say, counted again from the values before and after.
template <class F>
void recount(const Tensor& weight, const Tensor& gradient, double rate, const ref::Updated<F>& updated) {
  std::int64_t moved = 0, lost = 0, still = 0, bad = 0, over = 0;
  for (std::size_t i = 0; i < weight.values.size(); ++i) {
    const double w = weight.values[i], g = gradient.values[i], after = formats::decode<F>(updated.stored[i]);
    const double exact = std::fma(-rate, g, w);
    const auto rounded = formats::encode<F>(exact, Mode{Rounding::nearest_even, Overflow::ieee, Subnormals::keep, 0});
    if (!std::isfinite(w) || !std::isfinite(g)) {
      ++bad;
    } else if (!std::isfinite(after)) {
      ++over;
      CHECK(rounded.event == formats::Event::overflow || std::isinf(exact), F::name, w, g, rate);
    } else {
      ++(after != w ? moved : rate * g != 0 ? lost : still);
    }
  }
  const ops::UpdateCounts& c = updated.counts;
  CHECK(c.applied == moved && c.lost == lost && c.unchanged == still && c.nonfinite == bad && c.overflow == over,
        F::name, rate);
}

Tensor made(FormatId format, std::uint64_t seed, std::int64_t size, int low, int high, bool special) {
  auto values = test::random_values(seed, size, low, high);
  if (special) test::sprinkle(values, format, seed + 100, 300);
  return test::tensor(format, values);
}

void all_pairs(const std::vector<executor::Executor>& executors, std::int64_t size, bool special) {
  for (const FormatId to : test::storage_formats) {
    for (const FormatId from : test::storage_formats) {
      const Tensor weight = made(to, 11, size, -12, 6, special), gradient = made(from, 12, size, -9, 7, special);
      formats::visit(to, [&](auto f) {
        using F = decltype(f);
        for (const Mode& mode : modes()) {
          for (const double rate : {0.1, 0x1p-12, -3.0, 0.0, 1e300}) {
            const auto truth = ref::update<F>(weight.values, gradient.values, rate, mode, 3);
            if (mode.rounding == Rounding::nearest_even && mode.overflow == Overflow::ieee &&
                mode.subnormals == Subnormals::keep)
              recount(weight, gradient, rate, truth);
            for (const auto& e : executors) compare(e, weight, gradient, rate, mode, truth, rate == 0.1);
          }
        }
      });
    }
  }
}

// Squares that need scaling, and differences of float64 that are far smaller than what they are of.
void all_ranges(const std::vector<executor::Executor>& executors) {
  for (const int exponent : {-1060, -600, -430, -250, 0, 250, 480, 700, 1010}) {
    for (const double rate : {1.0, 0x1p-40}) {
      const Tensor weight = made(FormatId::float64, 21, 4001, exponent - 8, exponent + 8, false);
      const Tensor gradient = made(FormatId::float64, 22, 4001, exponent - 8, exponent + 8, false);
      const auto truth = ref::update<formats::float64>(weight.values, gradient.values, rate, {}, 3);
      for (const auto& e : executors) compare(e, weight, gradient, rate, {}, truth, false);
    }
  }
}

void threads(const std::vector<executor::Executor>& executors) {
  const Tensor weight = made(FormatId::float16, 31, 100003, -6, 2, true);
  const Tensor gradient = made(FormatId::float32, 32, 100003, -9, 7, false);
  for (const Rounding rounding : {Rounding::nearest_even, Rounding::stochastic}) {
    const Mode mode{rounding, Overflow::ieee, Subnormals::keep, 7};
    const auto truth = ref::update<formats::float16>(weight.values, gradient.values, 0.01, mode, 3);
    for (const int count : {1, 2, 5}) {
      base::set_num_threads(count);
      for (const auto& e : executors) compare(e, weight, gradient, 0.01, mode, truth, count == 2);
    }
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  const auto executors = gradkern::test::usable_executors();
  gradkern::all_pairs(executors, 2000, true);
  gradkern::all_pairs(executors, 1061, false);
  for (const std::int64_t size : {0, 1, 15, 16, 17}) gradkern::all_pairs(executors, size, false);
  gradkern::all_ranges(executors);
  gradkern::threads(executors);
  return gradkern::test::report();
}
