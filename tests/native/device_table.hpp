// The table of the kernels on the host, and the three orders of threads under which kernels are tested.
#pragma once

#include "cuda/kernels.hpp"
#include "cuda/platform.hpp"
#include "cuda/runtime.hpp"

extern "C" const gradkern::executor::DeviceTable* gradkern_device_table();

namespace gradkern::test {

inline executor::DeviceTable memory_table() { return *gradkern_device_table(); }

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
