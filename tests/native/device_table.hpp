// The table of the kernels on the host, memory of theirs, and the three orders of threads under which they are tested.
#pragma once

#include <new>
#include <vector>

#include "cuda/kernels.hpp"
#include "cuda/platform.hpp"
#include "cuda/runtime.hpp"

extern "C" const gradkern::executor::DeviceTable* gradkern_device_table();

namespace gradkern::test {

inline executor::DeviceTable memory_table() { return *gradkern_device_table(); }

// What lies in the kernels' memory is used where it lies, at whatever address; anything else is copied to an aligned one.
template <class T>
struct DeviceAllocator {
  using value_type = T;
  DeviceAllocator() = default;
  template <class U>
  DeviceAllocator(const DeviceAllocator<U>&) {}
  T* allocate(std::size_t count) {
    void* pointer = nullptr;
    if (cuda::allocate(&pointer, static_cast<std::int64_t>(count * sizeof(T)), nullptr)) throw std::bad_alloc();
    return static_cast<T*>(pointer);
  }
  void deallocate(T* pointer, std::size_t) { cuda::release(pointer, nullptr); }
  friend bool operator==(const DeviceAllocator&, const DeviceAllocator&) { return true; }
};
using DeviceBytes = std::vector<std::uint8_t, DeviceAllocator<std::uint8_t>>;

inline DeviceBytes on_device(const std::vector<std::uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

// How often a table's memory was asked for something.
struct Calls {
  int device_of = 0, copies = 0, waits = 0;
};
inline Calls calls;

inline executor::DeviceTable counting(executor::DeviceTable table) {
  table.device_of = [](const void* pointer, int* device) {
    ++calls.device_of;
    return cuda::device_of(pointer, device);
  };
  table.copy = [](void* to, const void* from, std::int64_t bytes, executor::Stream stream) {
    ++calls.copies;
    return cuda::copy(to, from, bytes, stream);
  };
  table.synchronize = [](executor::Stream stream) {
    ++calls.waits;
    return cuda::synchronize(stream);
  };
  return table;
}

// Of what body does.
template <class Body>
Calls calls_of(Body body) {
  calls = {};
  body();
  return calls;
}

// Kernels give the same bits in all of them.
inline constexpr simt::Order orders[] = {{simt::Order::forward}, {simt::Order::reverse}, {simt::Order::shuffled, 7}};

template <class Body>
void in_every_order(Body body) {
  for (const simt::Order& order : orders) {
    simt::set_order(order);
    body();
  }
}

}  // namespace gradkern::test
