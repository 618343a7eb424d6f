// The counts of a rounding that a device was asked for: nothing waits for them before somebody looks.
#pragma once

#include "bindings/device_array.hpp"

namespace gradkern::bindings {

class PendingCounts {
 public:
  // Enqueues the rounding; its source and result lie at the place.
  PendingCounts(const Place& place, executor::ConvertArgs args);

  // Waits, the first time.
  py::dict fetch();

 private:
  std::int64_t chunks_;
  std::shared_ptr<DeviceMemory> partials_;  // until they are fetched
  ops::RoundingCounts counts_;
};

}  // namespace gradkern::bindings
