// The table of the library that runs CUDA kernels on the host, without its kernels: a test enters those it links.
#pragma once

#include "cuda/platform.hpp"
#include "cuda/runtime.hpp"

namespace gradkern::test {

inline executor::DeviceTable device_table() {
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

}  // namespace gradkern::test
