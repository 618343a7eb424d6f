// Clipping: surveys, products and clamped entries against a plain loop over the entries, on every executor and thread count.
#include <algorithm>

#include "base/thread_pool.hpp"
#include "check.hpp"
#include "ops/clip.hpp"
#include "same.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using executor::ClipTensor;
using executor::Executor;
using test::FormatId;
using test::same;
using test::Tensor;

constexpr std::int64_t sizes[] = {0, 1, 15, 16, 17, 511, 513, 2047, 2049, 16383, 16384, 16401, 49159};

// Tensors as the executors take them, each writing to memory of its own.
struct Batch {
  std::vector<Tensor> tensors;
  std::vector<std::vector<std::uint8_t>> targets;
  std::vector<ClipTensor> args;

  explicit Batch(std::vector<Tensor> list) : tensors(std::move(list)) {
    targets.resize(tensors.size());
    for (const Tensor& t : tensors) args.push_back({t.size(), t.format, nullptr, nullptr});
    restart(false);
  }

  std::int64_t count() const { return static_cast<std::int64_t>(args.size()); }

  // Targets as the tensors are; sources are the same memory, or their own.
  void restart(bool in_place) {
    for (std::size_t i = 0; i < args.size(); ++i) {
      targets[i] = tensors[i].bytes;
      args[i].target = targets[i].data();
      args[i].source = in_place ? args[i].target : tensors[i].data();
    }
  }

  std::vector<ops::Survey> survey(const Executor& e, ops::Norm p) const {
    std::vector<ops::Survey> found(args.size());
    e.clip_survey(e, args.data(), count(), p, found.data());
    return found;
  }
};

void survey_against_truth(const Tensor& t, ops::Norm p, const ops::Survey& s) {
  std::int64_t nan = 0, inf = 0, first = -1;
  double amax = 0, amin = __builtin_inf();
  long double sum = 0;
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double a = std::fabs(t.values[static_cast<std::size_t>(i)]);
    if (!std::isfinite(a)) {
      ++(std::isnan(a) ? nan : inf);
      if (first < 0) first = i;
      continue;
    }
    amax = std::max(amax, a);
    if (a != 0) amin = std::min(amin, a);
    sum += p == ops::Norm::two ? static_cast<long double>(a) * a : static_cast<long double>(a);
  }
  const long double norm = p == ops::Norm::infinity ? amax : p == ops::Norm::two ? std::sqrt(sum) : sum;
  const ops::ScaledNorm got = ops::norm_of(s, p);
  const long double value = std::ldexp(static_cast<long double>(got.mantissa), got.exponent);
  const std::string name = test::name_of(t.format);
  CHECK(s.nan == nan && s.inf == inf && s.first_nonfinite == first, name, t.size(), s.nan, s.inf, s.first_nonfinite);
  CHECK(test::same(s.amax, amax) && test::same(s.amin, amin), name, t.size(), s.amax, amax, s.amin, amin);
  CHECK(std::fabs(value - norm) <= 1e-14L * norm, name, t.size(), static_cast<int>(p), static_cast<double>(value));
}

// The definition, entry by entry.
std::vector<std::uint8_t> scaled(const Tensor& t, const ops::ClipFactor& factor, bool zero, ops::ClipCounts& counts) {
  std::vector<std::uint8_t> bytes = t.bytes;
  if (!factor.write) return bytes;
  formats::visit(t.format, [&](auto f) {
    using F = decltype(f);
    typename F::container bits;
    for (std::size_t i = 0; i < bytes.size(); i += sizeof bits) {
      __builtin_memcpy(&bits, t.bytes.data() + i, sizeof bits);
      bits = ops::clip_entry<F>(bits, factor, zero, counts);
      __builtin_memcpy(bytes.data() + i, &bits, sizeof bits);
    }
  });
  return bytes;
}

// The bounds are values of every format.
std::vector<std::uint8_t> clamped(const Tensor& t, const ops::ClipBounds& b, bool zero, ops::ClipCounts& counts) {
  std::vector<double> values = t.values;
  std::vector<bool> moves(values.size());
  if (b.write) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      double x = values[i];
      if (zero && !std::isfinite(x)) {
        ++counts.flushed;
        x = 0;
        moves[i] = true;
      }
      const double y = x > b.high ? b.high : x < b.low ? b.low : x;
      moves[i] = moves[i] || !(x == y || std::isnan(x));
      counts.changed += !(x == y || std::isnan(x));
      values[i] = y;
    }
  }
  std::vector<std::uint8_t> bytes = t.bytes;
  const Tensor moved = test::tensor(t.format, values);
  const std::size_t width = values.empty() ? 1 : bytes.size() / values.size();
  for (std::size_t i = 0; i < values.size(); ++i)  // NaN keeps its bits
    if (moves[i])
      std::copy_n(moved.bytes.begin() + static_cast<std::ptrdiff_t>(i * width), width,
                  bytes.begin() + static_cast<std::ptrdiff_t>(i * width));
  return bytes;
}

template <class Asks, class Run, class Truth>
void writes(const char* what, Batch& batch, const std::vector<Asks>& asks, bool zero, Run run, Truth truth) {
  std::vector<ops::ClipCounts> want(batch.args.size()), got(batch.args.size());
  std::vector<std::vector<std::uint8_t>> bytes;
  for (std::size_t i = 0; i < asks.size(); ++i) bytes.push_back(truth(batch.tensors[i], asks[i], zero, want[i]));
  run(got.data());
  for (std::size_t i = 0; i < asks.size(); ++i) {
    const Tensor& t = batch.tensors[i];
    CHECK(batch.targets[i] == bytes[i], what, test::name_of(t.format), t.size(), zero);
    CHECK(same(got[i], want[i]), what, test::name_of(t.format), t.size(), zero, got[i].flushed, want[i].flushed,
          got[i].subnormal, want[i].subnormal, got[i].changed, want[i].changed);
  }
}

void one(const Executor& e, Batch& batch, bool zero) {
  batch.restart(false);
  const auto surveys = batch.survey(e, ops::Norm::two);
  constexpr double factors[] = {0.3, 0x1.fffffep-1, 0x1p-20, 0.0, 0x1.8p-9, 7.0};
  std::vector<ops::ClipFactor> scales;
  std::vector<ops::ClipBounds> bounds;
  for (std::size_t i = 0; i < batch.args.size(); ++i) {
    const bool split = batch.args[i].format == FormatId::float64 && i % 3 == 0;
    scales.push_back({static_cast<float>(factors[i % 6]), split ? 0x1p-900 : 1.0, i % 5 != 4});
    bounds.push_back({i % 2 ? -0.5 : 0.25, i % 3 ? 2.0 : 0.25, i % 5 != 4});
  }
  const auto scale = [&](ops::ClipCounts* counts) {
    e.clip_scale(e, batch.args.data(), batch.count(), surveys.data(), scales.data(), zero, counts);
  };
  const auto clamp = [&](ops::ClipCounts* counts) {
    e.clip_clamp(e, batch.args.data(), batch.count(), bounds.data(), zero, counts);
  };
  for (const bool in_place : {false, true}) {
    batch.restart(in_place);
    writes("scale", batch, scales, zero, scale, scaled);
    batch.restart(in_place);
    writes("clamp", batch, bounds, zero, clamp, clamped);
  }
}

std::vector<Tensor> tensors_of(FormatId format, bool special) {
  std::vector<Tensor> list;
  for (const std::int64_t size : sizes) {
    auto values = test::random_values(71, size, -20, 7);
    if (special) test::sprinkle(values, format, 72, 40);
    list.push_back(test::tensor(format, values));
  }
  return list;
}

void every(const std::vector<Executor>& executors, const std::vector<Tensor>& tensors) {
  Batch batch(tensors);
  for (const auto p : {ops::Norm::one, ops::Norm::two, ops::Norm::infinity}) {
    base::set_num_threads(1);
    const auto first = batch.survey(executors.front(), p);
    for (std::size_t i = 0; i < first.size(); ++i) survey_against_truth(tensors[i], p, first[i]);
    for (const int threads : {1, 2, 3, 7}) {
      base::set_num_threads(threads);
      for (const auto& e : executors) {
        const auto again = batch.survey(e, p);
        for (std::size_t i = 0; i < first.size(); ++i)
          CHECK(same(again[i], first[i]) && (e.device || test::same(again[i].amin, first[i].amin)), e.name, threads,
                test::name_of(tensors[i].format), tensors[i].size());
      }
    }
  }
  for (const int threads : {1, 2, 3, 7}) {
    base::set_num_threads(threads);
    for (const auto& e : executors)
      for (const bool zero : {false, true}) one(e, batch, zero);
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  const auto executors = test::usable_executors();
  for (const FormatId format : test::storage_formats)
    for (const bool special : {false, true}) every(executors, tensors_of(format, special));
  for (const int exponent : {1023, 700, 480, -390, -480, -1030}) {  // squares beyond float64
    std::vector<Tensor> list;
    for (const std::int64_t size : {17, 5000}) {
      list.push_back(test::tensor(FormatId::float64, test::random_values(73, size, exponent - 40, exponent)));
    }
    every(executors, list);
  }
  return test::report();
}
