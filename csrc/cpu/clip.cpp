#include "cpu/clip.hpp"

#include <algorithm>
#include <vector>

#include "base/thread_pool.hpp"

namespace gradkern::cpu {
namespace {

using executor::ClipTensor;

constexpr std::int64_t chunk = ops::clip_chunk;
constexpr std::int64_t own_cost = 512;  // entries: what a tensor costs that is empty

// The chunks of all tensors in a row, cut into spans of about equal work. Each chunk has a result of its own, merged in
// index order: which thread ran it leaves no trace.
template <class Result>
class ChunkDeal {
 public:
  template <class Wanted>
  ChunkDeal(const ClipTensor* tensors, std::int64_t count, Wanted wanted) : tensors_(tensors) {
    places_.reserve(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) {
      if (!wanted(i)) continue;
      for (std::int64_t begin = 0; begin < tensors[i].size; begin += chunk) {
        places_.push_back({i, begin, cost_});
        cost_ += std::min(chunk, tensors[i].size - begin) + own_cost;
      }
    }
  }

  // body(tensor, begin, end, result) for each chunk, then the results of each tensor together. Backwards: what was read
  // last may still be in a cache.
  template <class Body>
  void run(Result* results, bool backwards, Body body) {
    std::vector<Result> parts(places_.size());
    const std::int64_t threads = base::num_threads(), few = 4 * chunk;
    const std::int64_t spans = cost_ < few ? 1 : threads == 1 ? 1 : cost_ < 16 * few ? threads : 8 * threads;
    base::parallel_for(spans, [&](std::int64_t nth) {
      const std::int64_t span = backwards ? spans - 1 - nth : nth;
      const std::size_t first = start_of(span, spans), count = start_of(span + 1, spans) - first;
      for (std::size_t k = 0; k < count; ++k) {
        const std::size_t p = backwards ? first + count - 1 - k : first + k;
        const Place& at = places_[p];
        body(at.tensor, at.begin, std::min(at.begin + chunk, tensors_[at.tensor].size), parts[p]);
      }
    });
    for (std::size_t p = 0; p < parts.size(); ++p) results[places_[p].tensor].merge(parts[p]);
  }

 private:
  struct Place {
    std::int64_t tensor, begin, cost_before;
  };

  std::size_t start_of(std::int64_t span, std::int64_t spans) const {
    const std::int64_t cost = cost_ / spans * span + cost_ % spans * span / spans;
    const auto first = std::lower_bound(places_.begin(), places_.end(), cost,
                                        [](const Place& p, std::int64_t c) { return p.cost_before < c; });
    return static_cast<std::size_t>(first - places_.begin());
  }

  const ClipTensor* tensors_;
  std::int64_t cost_ = 0;
  std::vector<Place> places_;
};

// Whether every product is finite and the vector loop's: the largest tells for all of them.
bool is_plain(const ClipTensor& t, const ops::Survey& s, const ops::ClipFactor& f) {
  if (s.nan + s.inf != 0) return false;
  return formats::visit(t.format, [&](auto format) {
    using F = decltype(format);
    ops::ClipCounts counts;
    if constexpr (F::id != formats::FormatId::float64) {
      const double factor = f.first * f.second;
      if (f.second != 1 || !(factor >= 0x1p-126 && factor < 0x1p127)) return false;
    }
    const auto top = formats::encode<F>(s.amax, formats::Mode{}).bits;
    ops::clip_entry<F>(top, f, false, counts);
    return counts.overflow == 0 && ops::abs(f.first * f.second) < __builtin_inf();
  });
}

}  // namespace

void survey_tensors(const Kernels& kernels, const ClipTensor* tensors, std::int64_t count, ops::Norm p,
                    ops::Survey* surveys) {
  ChunkDeal<ops::Survey> deal(tensors, count, [](std::int64_t) { return true; });
  deal.run(surveys, false, [&](std::int64_t i, std::int64_t begin, std::int64_t end, ops::Survey& part) {
    kernels.clip_survey(tensors[i], p, begin, end, part);
  });
}

void scale_tensors(const Kernels& kernels, const ClipTensor* tensors, std::int64_t count, const ops::Survey* surveys,
                   const ops::ClipFactor* factors, bool zero, ops::ClipCounts* counts) {
  std::vector<char> plain(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i)
    if (factors[i].write) plain[static_cast<std::size_t>(i)] = is_plain(tensors[i], surveys[i], factors[i]);
  ChunkDeal<ops::ClipCounts> deal(tensors, count, [&](std::int64_t i) { return factors[i].write; });
  deal.run(counts, true, [&](std::int64_t i, std::int64_t begin, std::int64_t end, ops::ClipCounts& part) {
    kernels.clip_scale(tensors[i], factors[i], plain[static_cast<std::size_t>(i)] != 0, zero, begin, end, part);
  });
}

void clamp_tensors(const Kernels& kernels, const ClipTensor* tensors, std::int64_t count, const ops::ClipBounds* bounds,
                   bool zero, ops::ClipCounts* counts) {
  ChunkDeal<ops::ClipCounts> deal(tensors, count, [&](std::int64_t i) { return bounds[i].write; });
  deal.run(counts, true, [&](std::int64_t i, std::int64_t begin, std::int64_t end, ops::ClipCounts& part) {
    kernels.clip_clamp(tensors[i], bounds[i].low, bounds[i].high, zero, begin, end, part);
  });
}

}  // namespace gradkern::cpu
