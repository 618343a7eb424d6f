#include "cuda/runtime.hpp"

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <mutex>

#include "mma/units.hpp"

namespace gradkern::cuda {
namespace {

cudaStream_t native(Stream stream) { return static_cast<cudaStream_t>(stream); }

// A failed call leaves its error behind for the next launch to find: it is taken out at once.
int taken(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return static_cast<int>(error);
}

constexpr int most_devices = 64;

// Our pool of a device's memory. It keeps what was released, up to a sixteenth of the device's: the default pool gives
// everything back whenever somebody waits, and to map it anew takes longer than most kernels.
cudaError_t make_pool(int device, cudaMemPool_t& made) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  std::size_t free = 0, total = 0;
  if (const cudaError_t error = cudaMemGetInfo(&free, &total)) return error;
  cudaMemPool_t pool = nullptr;
  if (const cudaError_t error = cudaMemPoolCreate(&pool, &properties)) return error;
  std::uint64_t kept = total / 16;
  const cudaError_t error = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept);
  if (error) {
    cudaMemPoolDestroy(pool);
  } else {
    made = pool;
  }
  return error;
}

// Of the current device. Pools live as long as the process; one that could not be made is tried again.
cudaError_t pool_of_device(cudaMemPool_t& pool) {
  static std::mutex mutex;
  static cudaMemPool_t pools[most_devices];
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  if (device >= most_devices) return cudaErrorInvalidDevice;
  const std::lock_guard lock(mutex);
  const cudaError_t error = pools[device] ? cudaSuccess : make_pool(device, pools[device]);
  pool = pools[device];
  return error;
}

}  // namespace

const char* const runtime_name = "cuda";

int device_count(int* count) {
  *count = 0;
  return taken(cudaGetDeviceCount(count));
}

int describe(int device, executor::DeviceDescription* description) {
  cudaDeviceProp properties{};
  if (const int error = taken(cudaGetDeviceProperties(&properties, device))) return error;
  std::snprintf(description->name, sizeof description->name, "%s", properties.name);
  description->major = properties.major;
  description->minor = properties.minor;
  description->multiprocessors = properties.multiProcessorCount;
  description->memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem);
  return 0;
}

int matrix_unit(int* unit) {
  int device = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (!error) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (!error) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  *unit = static_cast<int>(mma::unit_of_capability(major, minor));
  return taken(error);
}

const char* error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

int set_device(int device) { return taken(cudaSetDevice(device)); }

int get_device(int* device) { return taken(cudaGetDevice(device)); }

int device_of(const void* pointer, int* device) {
  cudaPointerAttributes attributes{};
  *device = -1;
  if (const int error = taken(cudaPointerGetAttributes(&attributes, pointer))) return error;
  if (attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged) *device = attributes.device;
  return 0;
}

// Memory comes from the pool in the order of the stream: neither waits for the device.
int allocate(void** pointer, std::int64_t bytes, Stream stream) {
  cudaMemPool_t pool = nullptr;
  cudaError_t error = pool_of_device(pool);
  const auto size = static_cast<std::size_t>(bytes > 0 ? bytes : 1);
  if (!error) error = cudaMallocFromPoolAsync(pointer, size, pool, native(stream));
  return taken(error);
}

int release(void* pointer, Stream stream) { return taken(cudaFreeAsync(pointer, native(stream))); }

int allocate_host(void** pointer, std::int64_t bytes) {
  return taken(cudaHostAlloc(pointer, static_cast<std::size_t>(bytes), cudaHostAllocPortable));
}

int release_host(void* pointer) { return taken(cudaFreeHost(pointer)); }

int copy(void* to, const void* from, std::int64_t bytes, Stream stream) {
  return taken(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, native(stream)));
}

int clear(void* pointer, std::int64_t bytes, Stream stream) {
  return taken(cudaMemsetAsync(pointer, 0, static_cast<std::size_t>(bytes), native(stream)));
}

int synchronize(Stream stream) { return taken(cudaStreamSynchronize(native(stream))); }

int stream_wait(Stream later, Stream earlier) {
  cudaEvent_t reached = nullptr;
  int error = taken(cudaEventCreateWithFlags(&reached, cudaEventDisableTiming));
  if (error) return error;
  error = taken(cudaEventRecord(reached, native(earlier)));
  if (!error) error = taken(cudaStreamWaitEvent(native(later), reached, 0));
  cudaEventDestroy(reached);  // when it is reached
  return error;
}

int stream_create(Stream* stream) {
  cudaStream_t created = nullptr;
  const int error = taken(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking));
  *stream = created;
  return error;
}

int stream_destroy(Stream stream) { return taken(cudaStreamDestroy(native(stream))); }

}  // namespace gradkern::cuda
