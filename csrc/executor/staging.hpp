// What one call on a device borrows: copies of the host's arguments, places for its results, scratch. All of it is
// released, in the order of the stream, when the call ends. What lies on the device already is used where it is.
#pragma once

#include <vector>

#include "executor/device.hpp"
#include "executor/pinned.hpp"

namespace gradkern::executor {

// Results that were copied to page-locked memory, and have arrived.
template <class T>
class Fetched {
 public:
  Fetched(Pinned memory, std::int64_t count) : memory_(std::move(memory)), count_(count) {}
  const T* begin() const { return memory_.as<const T>(); }
  const T* end() const { return begin() + count_; }

 private:
  Pinned memory_;
  std::int64_t count_;
};

class Staging {
 public:
  explicit Staging(const Executor& e) : table_(*e.device), stream_(current_stream()), resident_(e.resident) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging() {
    for (void* pointer : borrowed_) table_.release(pointer, stream_);
  }

  const DeviceTable& table() const { return table_; }
  Stream stream() const { return stream_; }
  void check(int error, const char* doing) const { executor::check(table_, error, doing); }

  bool on_device(const void* pointer) const {
    if (resident_) return true;
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

  // A place for a result that is copied back in the end; holding: it starts with what is there now.
  void* out(void* pointer, std::int64_t bytes, bool holding = false) {
    if (!pointer || bytes == 0 || on_device(pointer)) return pointer;
    void* place = take(bytes);
    if (holding) check(table_.copy(place, pointer, bytes, stream_), "copy to the device");
    results_.push_back({pointer, place, bytes});
    return place;
  }

  void* take(std::int64_t bytes) {
    void* pointer = nullptr;
    check(table_.allocate(&pointer, bytes, stream_), "allocate");
    borrowed_.push_back(pointer);
    return pointer;
  }

  template <class T>
  T* scratch(std::int64_t count) {
    return static_cast<T*>(take(count * static_cast<std::int64_t>(sizeof(T))));
  }

  // Waits for what was enqueued, the results of the call included.
  template <class T>
  Fetched<T> fetch(const T* device, std::int64_t count) {
    const auto bytes = count * static_cast<std::int64_t>(sizeof(T));
    Pinned memory(table_, bytes);
    fetch(memory.data(), device, bytes);
    return {std::move(memory), count};
  }
  void fetch(void* pinned, const void* device, std::int64_t bytes) {
    copy_back();
    check(table_.copy(pinned, device, bytes, stream_), "copy back");
    check(table_.synchronize(stream_), "synchronize");
  }

  // Copies results back and waits for them; where there are none, or they were fetched, nothing is waited for.
  void finish() {
    if (results_.empty()) return;
    copy_back();
    check(table_.synchronize(stream_), "synchronize");
  }

 private:
  struct Result {
    void* host;
    void* device;
    std::int64_t bytes;
  };

  void copy_back() {
    for (const Result& r : results_) check(table_.copy(r.host, r.device, r.bytes, stream_), "copy back");
    results_.clear();
  }

  const DeviceTable& table_;
  Stream stream_;
  bool resident_;
  std::vector<void*> borrowed_;
  std::vector<Result> results_;
};

// The executor's functions over lists of tensors: executor/device_statistics.cpp, executor/device_clip.cpp.
void device_statistics(const Executor&, const StatisticsArgs* tensors, std::int64_t count, const StatisticsDone&);
void device_clip_survey(const Executor&, const ClipTensor* tensors, std::int64_t count, ops::Norm, ops::Survey*);
void device_clip_scale(const Executor&, const ClipTensor* tensors, std::int64_t count, const ops::Survey*,
                       const ops::ClipFactor*, bool zero, ops::ClipCounts*);
void device_clip_clamp(const Executor&, const ClipTensor* tensors, std::int64_t count, const ops::ClipBounds*,
                       bool zero, ops::ClipCounts*);

}  // namespace gradkern::executor
