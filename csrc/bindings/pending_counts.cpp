#include "bindings/pending_counts.hpp"

#include "base/thread_pool.hpp"
#include "executor/pinned.hpp"

namespace gradkern::bindings {

PendingCounts::PendingCounts(const Place& place, executor::ConvertArgs args)
    : chunks_(base::chunk_count(args.size, ops::rounding_chunk)) {
  if (args.size == 0) return;
  constexpr auto bytes = static_cast<std::int64_t>(sizeof(ops::RoundingCounts));
  partials_ = std::make_shared<DeviceMemory>(place, chunks_ * bytes);
  args.counts = static_cast<ops::RoundingCounts*>(partials_->pointer());
  const Scope scope(place);
  const py::gil_scoped_release release;
  place.check(place.table().convert(&args, 1, place.stream), "convert");
}

py::dict PendingCounts::fetch() {
  if (const auto partials = partials_) {
    const Place& place = partials->place();
    const auto bytes = chunks_ * static_cast<std::int64_t>(sizeof(ops::RoundingCounts));
    ops::RoundingCounts total;
    {
      const Scope scope(place);
      const py::gil_scoped_release release;
      const executor::Pinned found(place.table(), bytes);
      place.check(place.table().copy(found.data(), partials->pointer(), bytes, place.stream), "copy back");
      place.check(place.table().synchronize(place.stream), "synchronize");
      for (std::int64_t c = 0; c < chunks_; ++c) total.merge(found.as<const ops::RoundingCounts>()[c]);
    }
    counts_ = total;
    partials_.reset();
  }
  return counts_to_dict(counts_);
}

}  // namespace gradkern::bindings
