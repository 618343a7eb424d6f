// Memory and streams of the host: what CUDA enqueues runs at once.
#include "cuda/runtime.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>

#include "simt/executor.hpp"
#include "simt/tensor_core.hpp"

namespace gradkern::cuda {
namespace {

constexpr int out_of_memory = 2, illegal_address = 700, not_supported = 801;  // CUDA's numbers

// What is read before it is written is NaN, which shows. Behind it lie ordinary numbers, which would be taken for entries:
// no kernel may write there.
constexpr int unwritten = 0xFF, behind = 0x3A;
constexpr std::int64_t guard = 64;

// What was allocated: a pointer into it is one to the device.
std::mutex mutex;
std::map<const char*, std::int64_t>& allocations() {
  static auto* map = new std::map<const char*, std::int64_t>;  // outlives whoever releases last
  return *map;
}

std::atomic<long> synchronizations{0};
std::atomic<bool> overrun{false};  // found when memory is released, said by whoever next asks for some

}  // namespace

// How often anything was waited for: tests read it.
extern "C" __attribute__((visibility("default"))) long gradkern_simt_synchronizations() { return synchronizations; }

const char* const runtime_name = "simt";

int device_count(int* count) {
  *count = 1;
  return 0;
}

int describe(int, executor::DeviceDescription* description) {
  std::strcpy(description->name, "the CUDA kernels on the host");
  description->major = description->minor = 0;
  description->multiprocessors = 1;
  description->memory_bytes = 0;
  return 0;
}

int matrix_unit(int* unit) {
  *unit = static_cast<int>(simt::architecture());
  return 0;
}

const char* error_text(int error) {
  switch (error) {
    case out_of_memory:
      return "out of memory";
    case not_supported:
      return "not supported on the host";
    case illegal_address:
      return "a kernel wrote beyond the end of what was allocated";
    default:
      return simt::last_error();
  }
}

int set_device(int) { return 0; }

int get_device(int* device) {
  *device = 0;
  return 0;
}

int device_of(const void* pointer, int* device) {
  const auto* p = static_cast<const char*>(pointer);
  const std::lock_guard lock(mutex);
  const auto after = allocations().upper_bound(p);
  *device = after != allocations().begin() && p < std::prev(after)->first + std::prev(after)->second ? 0 : -1;
  return 0;
}

int allocate(void** pointer, std::int64_t bytes, Stream) {
  if (overrun.exchange(false)) return illegal_address;
  const std::int64_t size = bytes > 0 ? bytes : 1, all = (size + guard + 255) / 256 * 256;
  *pointer = std::aligned_alloc(256, static_cast<std::size_t>(all));
  if (!*pointer) return out_of_memory;
  std::memset(*pointer, unwritten, static_cast<std::size_t>(size));
  std::memset(static_cast<char*>(*pointer) + size, behind, guard);
  const std::lock_guard lock(mutex);
  allocations()[static_cast<const char*>(*pointer)] = size;
  return 0;
}

int release(void* pointer, Stream) {
  const auto* const begin = static_cast<const unsigned char*>(pointer);
  {
    const std::lock_guard lock(mutex);
    const auto found = allocations().find(static_cast<const char*>(pointer));
    const auto written = [](unsigned char byte) { return byte != behind; };
    if (std::any_of(begin + found->second, begin + found->second + guard, written)) overrun = true;
    allocations().erase(found);
  }
  std::free(pointer);
  return 0;
}

int allocate_host(void** pointer, std::int64_t bytes) {
  *pointer = std::aligned_alloc(256, static_cast<std::size_t>((bytes + 255) / 256 * 256));
  return *pointer ? 0 : out_of_memory;
}

int release_host(void* pointer) {
  std::free(pointer);
  return 0;
}

int copy(void* to, const void* from, std::int64_t bytes, Stream) {
  if (bytes) std::memcpy(to, from, static_cast<std::size_t>(bytes));
  return 0;
}

int clear(void* pointer, std::int64_t bytes, Stream) {
  if (bytes) std::memset(pointer, 0, static_cast<std::size_t>(bytes));
  return 0;
}

int synchronize(Stream) {
  ++synchronizations;
  return 0;
}

int stream_wait(Stream, Stream) { return 0; }

int stream_create(Stream* stream) {
  *stream = nullptr;
  return 0;
}

int stream_destroy(Stream) { return 0; }

}  // namespace gradkern::cuda
