// What one call on a device borrows: copies of the host's arguments, places for its results, scratch. All of it is
// released, in the order of the stream, when the call ends. What lies on the device already is used where it is.
#pragma once

#include <vector>

#include "executor/device.hpp"

namespace gradkern::executor {

class Staging {
 public:
  explicit Staging(const DeviceTable& table) : table_(table), stream_(current_stream()) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging() {
    for (void* pointer : borrowed_) table_.release(pointer, stream_);
  }

  Stream stream() const { return stream_; }
  void check(int error, const char* doing) const { executor::check(table_, error, doing); }

  bool on_device(const void* pointer) const {
    int device = -1;
    check(table_.device_of(pointer, &device), "device_of");
    return device >= 0;
  }

  const void* in(const void* pointer, std::int64_t bytes) {
    if (!pointer || bytes == 0 || on_device(pointer)) return pointer;
    void* copy = take(bytes);
    check(table_.copy(copy, pointer, bytes, stream_), "copy to the device");
    return copy;
  }

  // A place for a result that finish() copies back; holding: it starts with what is there now.
  void* out(void* pointer, std::int64_t bytes, bool holding = false) {
    if (!pointer || bytes == 0 || on_device(pointer)) return pointer;
    void* place = holding ? const_cast<void*>(in(pointer, bytes)) : take(bytes);
    results_.push_back({pointer, place, bytes});
    return place;
  }

  template <class T>
  T* scratch(std::int64_t count, bool cleared = false) {
    const auto bytes = count * static_cast<std::int64_t>(sizeof(T));
    void* place = take(bytes);
    if (cleared) check(table_.clear(place, bytes, stream_), "clear");
    return static_cast<T*>(place);
  }

  template <class T>
  const T* upload(const std::vector<T>& values) {
    return static_cast<const T*>(in(values.data(), static_cast<std::int64_t>(values.size() * sizeof(T))));
  }

  // Waits for what was enqueued.
  template <class T>
  std::vector<T> fetch(const T* device, std::int64_t count) {
    std::vector<T> values(static_cast<std::size_t>(count));
    check(table_.copy(values.data(), device, count * static_cast<std::int64_t>(sizeof(T)), stream_), "copy back");
    check(table_.synchronize(stream_), "synchronize");
    return values;
  }

  // Copies results back and waits for them; where there are none, nothing is waited for.
  void finish() {
    for (const Result& r : results_) check(table_.copy(r.host, r.device, r.bytes, stream_), "copy back");
    if (!results_.empty()) check(table_.synchronize(stream_), "synchronize");
    results_.clear();
  }

 private:
  struct Result {
    void* host;
    void* device;
    std::int64_t bytes;
  };

  void* take(std::int64_t bytes) {
    void* pointer = nullptr;
    check(table_.allocate(&pointer, bytes, stream_), "allocate");
    borrowed_.push_back(pointer);
    return pointer;
  }

  const DeviceTable& table_;
  Stream stream_;
  std::vector<void*> borrowed_;
  std::vector<Result> results_;
};

// The executor's functions over lists of tensors: executor/device_lists.cpp.
void device_statistics(const Executor&, const StatisticsArgs* tensors, std::int64_t count, const StatisticsDone&);
void device_clip_survey(const Executor&, const ClipTensor* tensors, std::int64_t count, ops::Norm, ops::Survey*);
void device_clip_scale(const Executor&, const ClipTensor* tensors, std::int64_t count, const ops::Survey*,
                       const ops::ClipFactor*, bool zero, ops::ClipCounts*);
void device_clip_clamp(const Executor&, const ClipTensor* tensors, std::int64_t count, const ops::ClipBounds*,
                       bool zero, ops::ClipCounts*);

}  // namespace gradkern::executor
