// A table of device kernels whose runtime is the host's: tests add the kernels that they compile.
#pragma once

#include "cuda/runtime.hpp"
#include "simt/executor.hpp"

namespace gradkern::test {

inline executor::DeviceTable host_table() {
  executor::DeviceTable table{};
  table.version = executor::device_table_version;
  table.name = cuda::runtime_name;
  table.device_count = cuda::device_count;
  table.describe = cuda::describe;
  table.error_text = [](int) { return simt::last_error(); };
  table.set_device = cuda::set_device;
  table.device_of = cuda::device_of;
  table.allocate = cuda::allocate;
  table.release = cuda::release;
  table.copy = cuda::copy;
  table.clear = cuda::clear;
  table.synchronize = cuda::synchronize;
  return table;
}

// The orders in which the threads of a block run: kernels give the same bits in all.
inline constexpr simt::Order orders[] = {{simt::Order::forward}, {simt::Order::reverse}, {simt::Order::shuffled, 7}};

}  // namespace gradkern::test
