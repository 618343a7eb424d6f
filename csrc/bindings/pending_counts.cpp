#include "bindings/pending_counts.hpp"

#include "base/thread_pool.hpp"

namespace gradkern::bindings {

PendingCounts::PendingCounts(const Place& place, executor::ConvertArgs args)
    : chunks_(base::chunk_count(args.size, ops::rounding_chunk)) {
  if (args.size == 0) return;
  constexpr auto bytes = static_cast<std::int64_t>(sizeof(ops::RoundingCounts));
  partials_ = std::make_shared<DeviceMemory>(place, chunks_ * bytes);
  args.counts = static_cast<ops::RoundingCounts*>(partials_->pointer());
  const Scope scope(place);
  const py::gil_scoped_release release;
  place.check(place.table().convert(&args, place.stream), "convert");
}

py::dict PendingCounts::fetch() {
  if (const auto partials = partials_) {
    std::vector<ops::RoundingCounts> found(static_cast<std::size_t>(chunks_));
    const Place& place = partials->place();
    ops::RoundingCounts total;
    {
      const Scope scope(place);
      const py::gil_scoped_release release;
      const auto bytes = static_cast<std::int64_t>(found.size() * sizeof found[0]);
      place.check(place.table().copy(found.data(), partials->pointer(), bytes, place.stream), "copy back");
      place.check(place.table().synchronize(place.stream), "synchronize");
      for (const ops::RoundingCounts& part : found) total.merge(part);
    }
    counts_ = total;
    partials_.reset();
  }
  return counts_to_dict(counts_);
}

}  // namespace gradkern::bindings
