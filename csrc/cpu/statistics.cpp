#include "cpu/statistics.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/thread_pool.hpp"
#include "cpu/patterns.hpp"

namespace gradkern::cpu {
namespace {

using executor::StatisticsArgs;

constexpr std::int64_t block = ops::statistics_block, chunk = ops::statistics_chunk;
constexpr std::int64_t few_blocks = 64;     // for each thread: dealt at once, for there is little to even out
constexpr std::int64_t worth_threads = 12;  // units: waking a thread takes as long as measuring some

std::int64_t blocks_of(const StatisticsArgs& t) { return base::chunk_count(t.size, block); }

bool by_pattern(const StatisticsArgs& t) {
  return formats::visit(t.format, [&](auto f) { return ops::measured_by_pattern<decltype(f)>(t.size); });
}

// By pattern, and large enough to take all threads by itself.
bool takes_all_threads(const StatisticsArgs& t) { return t.size >= 32 * block && by_pattern(t); }

// A large tensor is cut between chunks, others between blocks; either has moments of its own, a piece.
std::int64_t piece_of(const StatisticsArgs& t) { return t.size >= 32 * chunk ? chunk : block; }

// Blocks make a chunk, chunks the tensor, in index order.
ops::Moments merge_pieces(const ops::Moments* pieces, std::int64_t count, std::int64_t in_chunk) {
  ops::Moments total;
  for (std::int64_t first = 0; first < count; first += in_chunk) {
    ops::Moments merged;
    for (std::int64_t b = first; b < std::min(count, first + in_chunk); ++b) merged.merge(pieces[b]);
    total.merge(merged);
  }
  return total;
}

// What is left once all pieces are measured.
void complete(const StatisticsArgs& t, const ops::Moments* pieces, ops::Statistics& s) {
  const std::int64_t piece = piece_of(t);
  s.moments = merge_pieces(pieces, base::chunk_count(t.size, piece), chunk / piece);
  formats::visit(t.format, [&](auto f) { ops::count_subnormals(s, formats::Layout<decltype(f)>::min_exponent); });
}

// Statistics are 100 KB: each thread keeps what it has used.
ops::Statistics& scratch(std::size_t index) {
  thread_local std::vector<std::unique_ptr<ops::Statistics>> kept;
  while (kept.size() <= index) kept.push_back(ops::make_statistics());
  kept[index]->reset();
  return *kept[index];
}

// The blocks of all tensors in a row, cut into spans of about equal work. Counts gather for each span, moments for each
// piece: only moments have an order to keep.
class Deal {
 public:
  Deal(const Kernels& kernels, const StatisticsArgs* tensors, std::int64_t count, const executor::StatisticsDone& done)
      : kernels_(kernels), tensors_(tensors), done_(done) {
    std::int64_t pieces = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      first_unit_.push_back(units_);
      first_piece_.push_back(pieces);
      if (takes_all_threads(tensors[i])) continue;
      units_ += blocks_of(tensors[i]) + 1;  // a tensor has its cost even when empty
      pieces += base::chunk_count(tensors[i].size, piece_of(tensors[i]));
    }
    first_unit_.push_back(units_);
    moments_.resize(static_cast<std::size_t>(pieces));
    const std::int64_t threads = base::num_threads();
    const std::int64_t spans = threads == 1 || units_ < few_blocks * threads ? threads : 4 * threads;
    spans_ = units_ <= worth_threads ? std::min<std::int64_t>(units_, 1) : std::min(units_, spans);
  }

  void run() {
    if (spans_ == 0) return;
    parts_.resize(static_cast<std::size_t>(2 * spans_));
    for (std::size_t p = 0; spans_ > 1 && p < parts_.size(); ++p) parts_[p].counts = &scratch(p + 1);
    base::parallel_for(spans_, [&](std::int64_t span) { measure_span(span); });
    for (std::size_t p = 0; p < parts_.size();) {
      const std::int64_t tensor = parts_[p].tensor;
      if (tensor < 0) {
        ++p;
        continue;
      }
      ops::Statistics& total = scratch(0);
      for (; p < parts_.size() && (parts_[p].tensor == tensor || parts_[p].tensor < 0); ++p)
        if (parts_[p].tensor == tensor) total.merge_counts(*parts_[p].counts);
      finish(tensor, total);
    }
  }

 private:
  // What a span has of a tensor that others share: the last of one, or the first.
  struct Part {
    std::int64_t tensor = -1;
    ops::Statistics* counts = nullptr;
  };

  void measure_span(std::int64_t span) {
    const std::int64_t begin = units_ * span / spans_, end = units_ * (span + 1) / spans_;
    auto i = std::upper_bound(first_unit_.begin(), first_unit_.end() - 1, begin) - first_unit_.begin() - 1;
    for (; i + 1 < static_cast<std::int64_t>(first_unit_.size()) && first_unit_[at(i)] < end; ++i) {
      const std::int64_t first = first_unit_[at(i)], units = first_unit_[at(i + 1)] - first;
      if (units == 0) continue;
      const auto cut = [&](std::int64_t unit) {
        return unit <= 0 ? 0 : unit >= units ? units : unit - unit % (piece_of(tensors_[i]) / block);
      };
      const std::int64_t from = cut(begin - first), to = cut(end - first);
      if (from == to) continue;
      if (by_pattern(tensors_[i])) {  // cannot be shared
        if (from == 0) done_pattern(i);
      } else if (from == 0 && to == units) {
        ops::Statistics& s = scratch(0);
        measure(i, 0, units, s);
        finish(i, s);
      } else {
        Part& part = parts_[at(2 * span + (from == 0))];
        part.tensor = i;
        measure(i, from, to, *part.counts);
      }
    }
  }

  // Units [from, to) of a tensor, of which the last is no block.
  void measure(std::int64_t i, std::int64_t from, std::int64_t to, ops::Statistics& counts) {
    const std::int64_t size = tensors_[i].size, begin = from * block, end = std::min(to * block, size);
    const std::int64_t piece = piece_of(tensors_[i]);
    if (begin < end)
      kernels_.measure(tensors_[i], begin, end, piece, counts, moments_.data() + first_piece_[at(i)] + begin / piece);
  }

  void finish(std::int64_t i, ops::Statistics& s) {
    complete(tensors_[i], moments_.data() + first_piece_[at(i)], s);
    done_(i, s);
  }

  void done_pattern(std::int64_t i) {
    ops::Statistics& s = scratch(0);
    measure_by_pattern(tensors_[i], s);
    done_(i, s);
  }

  static std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

  const Kernels& kernels_;
  const StatisticsArgs* tensors_;
  const executor::StatisticsDone& done_;
  std::int64_t units_ = 0, spans_ = 0;
  std::vector<std::int64_t> first_unit_, first_piece_;
  std::vector<ops::Moments> moments_;
  std::vector<Part> parts_;
};

// A tensor that one thread measures, without a deal: a chain has thousands of small ones.
void measure_alone(const Kernels& kernels, const StatisticsArgs& t, const executor::StatisticsDone& done) {
  thread_local std::vector<ops::Moments> pieces;
  const std::int64_t piece = piece_of(t);
  pieces.assign(static_cast<std::size_t>(base::chunk_count(t.size, piece)), {});
  ops::Statistics& s = scratch(0);
  if (t.size) kernels.measure(t, 0, t.size, piece, s, pieces.data());
  complete(t, pieces.data(), s);
  done(0, s);
}

}  // namespace

void measure_tensors(const Kernels& kernels, const StatisticsArgs* tensors, std::int64_t count,
                     const executor::StatisticsDone& done) {
  const bool by_one = base::in_parallel_region() || base::num_threads() == 1;
  if (count == 1 && !by_pattern(*tensors) && (by_one || blocks_of(*tensors) < worth_threads))
    return measure_alone(kernels, *tensors, done);
  for (std::int64_t i = 0; i < count; ++i) {
    if (!takes_all_threads(tensors[i])) continue;
    ops::Statistics& s = scratch(0);
    measure_by_pattern(tensors[i], s);
    done(i, s);
  }
  Deal(kernels, tensors, count, done).run();
}

}  // namespace gradkern::cpu
