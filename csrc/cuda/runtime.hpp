// Memory and streams: by the CUDA runtime in cuda/runtime.cu, on the host in cuda/runtime_host.cpp. Functions return 0 or
// an error, as executor::DeviceTable says.
#pragma once

#include "executor/device.hpp"

namespace gradkern::cuda {

using executor::Stream;

extern const char* const runtime_name;

int device_count(int* count);
int describe(int device, executor::DeviceDescription* description);
int matrix_unit(int* unit);
const char* error_text(int error);
int set_device(int device);
int get_device(int* device);
int device_of(const void* pointer, int* device);
int allocate(void** pointer, std::int64_t bytes, Stream stream);
int release(void* pointer, Stream stream);
int allocate_host(void** pointer, std::int64_t bytes);
int release_host(void* pointer);
int copy(void* to, const void* from, std::int64_t bytes, Stream stream);
int clear(void* pointer, std::int64_t bytes, Stream stream);
int synchronize(Stream stream);
int stream_wait(Stream later, Stream earlier);
int stream_create(Stream* stream);
int stream_destroy(Stream stream);

}  // namespace gradkern::cuda
