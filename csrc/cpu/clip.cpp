#include "cpu/clip.hpp"

#include <algorithm>
#include <vector>

#include "base/thread_pool.hpp"

namespace gradkern::cpu {
namespace {

using executor::ClipTensor;

constexpr std::int64_t chunk = ops::clip_chunk;
constexpr std::int64_t fetched_ahead = 2048;  // entries
constexpr std::int64_t own_cost = 512;        // entries: what a tensor costs that is empty

// The chunks of all tensors in a row, cut into spans of about equal work. The first chunk of a tensor has its result, the
// others results of their own, merged in index order: which thread ran a chunk leaves no trace.
template <class Wanted>
class ChunkDeal {
 public:
  ChunkDeal(const ClipTensor* tensors, std::int64_t count, Wanted wanted)
      : tensors_(tensors), count_(count), wanted_(wanted) {
    std::int64_t cost = 0;
    for (std::int64_t i = 0; i < count; ++i) cost += size(i) + base::chunk_count(size(i), chunk) * own_cost;
    const std::int64_t threads = base::num_threads(), few = 4 * chunk;
    spans_ = cost < few ? 1 : threads == 1 ? 1 : cost < 16 * few ? threads : 8 * threads;
    Place p{next_wanted(0), 0, 0};
    starts_.push_back(p);
    for (std::int64_t before = 0; p.tensor < count; p = after(p)) {
      for (auto span = static_cast<std::int64_t>(starts_.size()); span < spans_; ++span) {
        if (before < cost / spans_ * span + cost % spans_ * span / spans_) break;
        starts_.push_back(p);
      }
      before += end_of(p) - p.begin + own_cost;
    }
    starts_.resize(static_cast<std::size_t>(spans_) + 1, p);
  }

  // body(tensor, range, result) for each chunk; sets the results of tensors that have any. Backwards: what was read last
  // may still be in a cache.
  template <class Result, class Body>
  void run(Result* results, bool backwards, Body body) {
    std::vector<Result> others(static_cast<std::size_t>(starts_.back().others));
    base::parallel_for(spans_, [&](std::int64_t nth) {
      const auto span = static_cast<std::size_t>(backwards ? spans_ - 1 - nth : nth);
      const Place first = starts_[span], end = starts_[span + 1];
      if (first == end) return;
      const Place last = backwards ? first : ahead_of(end);
      const auto step = [&](const Place& p) { return backwards ? ahead_of(p) : after(p); };
      std::int64_t between = 0;  // entries from p to what is fetched meanwhile
      for (Place p = backwards ? ahead_of(end) : first, far = p;; p = step(p)) {
        for (; between < fetched_ahead && !(far == last); far = step(far)) between += end_of(far) - far.begin;
        const ClipRange range{p.begin, end_of(p), address(far), is_whole(far) && format(far) == format(p)};
        Result result;
        body(p.tensor, range, result);
        (p.begin == 0 ? results[p.tensor] : others[static_cast<std::size_t>(p.others)]) = result;
        if (p == last) return;
        between -= range.end - range.begin;
      }
    });
    if (others.empty()) return;
    for (Place p = starts_.front(); p.tensor < count_; p = after(p))
      if (p.begin != 0) results[p.tensor].merge(others[static_cast<std::size_t>(p.others)]);
  }

 private:
  // A chunk, and how many before it are not the first of their tensors.
  struct Place {
    std::int64_t tensor, begin, others;
    bool operator==(const Place& p) const { return tensor == p.tensor && begin == p.begin; }
  };

  std::int64_t size(std::int64_t i) const { return wanted_(i) ? tensors_[i].size : 0; }
  std::int64_t next_wanted(std::int64_t i) const {
    while (i < count_ && size(i) == 0) ++i;
    return i;
  }
  std::int64_t end_of(const Place& p) const { return std::min(p.begin + chunk, tensors_[p.tensor].size); }

  bool is_whole(const Place& p) const { return end_of(p) - p.begin == chunk; }
  formats::FormatId format(const Place& p) const { return tensors_[p.tensor].format; }

  Place after(const Place& p) const {
    const std::int64_t others = p.others + (p.begin != 0);
    if (p.begin + chunk < tensors_[p.tensor].size) return {p.tensor, p.begin + chunk, others};
    return {next_wanted(p.tensor + 1), 0, others};
  }
  Place ahead_of(const Place& p) const {
    std::int64_t i = p.tensor, begin = p.begin - chunk;
    if (p.begin == 0) {
      do --i;
      while (size(i) == 0);
      begin = (tensors_[i].size - 1) / chunk * chunk;
    }
    return {i, begin, p.others - (begin != 0)};
  }

  const void* address(const Place& p) const {
    const ClipTensor& t = tensors_[p.tensor];
    return formats::visit(t.format, [&](auto f) -> const void* {
      return static_cast<const typename decltype(f)::container*>(t.source) + p.begin;
    });
  }

  const ClipTensor* tensors_;
  std::int64_t count_, spans_;
  Wanted wanted_;
  std::vector<Place> starts_;
};

// The largest entry tells for all of them whether every product is finite, the least whether any is lost.
ClipWay way_of(const ClipTensor& t, const ops::Survey& s, const ops::ClipFactor& f) {
  if (s.nan + s.inf != 0) return ClipWay::by_entry;
  return formats::visit(t.format, [&](auto format) {
    using F = decltype(format);
    ops::ClipCounts counts;
    const auto product = [&](double x) {
      const auto bits = formats::encode<F>(x, formats::Mode{}).bits;
      return ops::abs(formats::decode<F>(ops::clip_entry<F>(bits, f, false, counts)));
    };
    if constexpr (F::id != formats::FormatId::float64) {
      const double factor = f.first * f.second;
      if (f.second != 1 || !(factor >= 0x1p-126 && factor < 0x1p127)) return ClipWay::by_entry;
      using L = formats::Layout<F>;  // far from both ends
      if (s.amax * factor <= formats::exp2i(F::bias) && s.amin * factor >= formats::exp2i(L::min_exponent + 1))
        return ClipWay::lossless;
    }
    product(s.amax);
    if (counts.overflow != 0 || !(ops::abs(f.first * f.second) < __builtin_inf())) return ClipWay::by_entry;
    const bool zeros = s.amax == 0;
    return zeros || product(s.amin) >= formats::exp2i(formats::Layout<F>::min_exponent) ? ClipWay::lossless
                                                                                        : ClipWay::plain;
  });
}

}  // namespace

void survey_tensors(const Kernels& kernels, const ClipTensor* tensors, std::int64_t count, ops::Norm p,
                    ops::Survey* surveys) {
  for (std::int64_t i = 0; i < count; ++i)
    if (tensors[i].size == 0) surveys[i] = {};
  ChunkDeal deal(tensors, count, [](std::int64_t) { return true; });
  deal.run(surveys, false, [&](std::int64_t i, const ClipRange& range, ops::Survey& part) {
    kernels.clip_survey(tensors[i], p, range, part);
  });
}

void scale_tensors(const Kernels& kernels, const ClipTensor* tensors, std::int64_t count, const ops::Survey* surveys,
                   const ops::ClipFactor* factors, bool zero, ops::ClipCounts* counts) {
  ChunkDeal deal(tensors, count, [&](std::int64_t i) { return factors[i].write; });
  deal.run(counts, true, [&](std::int64_t i, const ClipRange& range, ops::ClipCounts& part) {
    kernels.clip_scale(tensors[i], factors[i], way_of(tensors[i], surveys[i], factors[i]), zero, range, part);
  });
}

void clamp_tensors(const Kernels& kernels, const ClipTensor* tensors, std::int64_t count, const ops::ClipBounds* bounds,
                   bool zero, ops::ClipCounts* counts) {
  ChunkDeal deal(tensors, count, [&](std::int64_t i) { return bounds[i].write; });
  deal.run(counts, true, [&](std::int64_t i, const ClipRange& range, ops::ClipCounts& part) {
    kernels.clip_clamp(tensors[i], bounds[i].low, bounds[i].high, zero, range, part);
  });
}

}  // namespace gradkern::cpu
