// A table of device kernels that run on the host: memory is that of cuda/runtime_host.cpp, and a test puts in the
// launchers that it tests. And the three orders of threads under which kernels are tested.
#pragma once

#include "cuda/kernels.hpp"
#include "cuda/platform.hpp"
#include "cuda/runtime.hpp"

namespace gradkern::test {

inline executor::DeviceTable memory_table() {
  executor::DeviceTable table{};
  table.version = executor::device_table_version;
  table.name = cuda::runtime_name;
  table.device_count = cuda::device_count;
  table.describe = cuda::describe;
  table.error_text = cuda::error_text;
  table.set_device = cuda::set_device;
  table.device_of = cuda::device_of;
  table.allocate = cuda::allocate;
  table.release = cuda::release;
  table.copy = cuda::copy;
  table.clear = cuda::clear;
  table.synchronize = cuda::synchronize;
  table.stream_create = cuda::stream_create;
  table.stream_destroy = cuda::stream_destroy;
  table.graph_begin = cuda::graph_begin;
  table.graph_end = cuda::graph_end;
  table.graph_launch = cuda::graph_launch;
  table.graph_destroy = cuda::graph_destroy;
  return table;
}

template <class Body>
void in_every_order(Body body) {
  for (const char* order : {"forward", "reverse", "20240607"}) {
    simt::set_order(simt::order_of(order));
    body();
  }
}

}  // namespace gradkern::test
