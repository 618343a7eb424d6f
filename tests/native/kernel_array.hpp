// Arrays that kernels and the test both see, and a launch that is done when it returns: on the host, or on a GPU where
// nvcc compiles the test (nvcc -x cu).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "check.hpp"
#include "cuda/platform.hpp"

namespace gradkern::test {

template <class T>
class Array {
 public:
  explicit Array(std::size_t size, T value = T()) : size_(size) {
#if defined(__CUDACC__)
    cudaMallocManaged(&data_, size * sizeof(T));
#else
    data_ = new (std::align_val_t(128)) T[size];
#endif
    for (std::size_t i = 0; i < size; ++i) data_[i] = value;
  }
  ~Array() {
#if defined(__CUDACC__)
    cudaFree(data_);
#else
    ::operator delete[](data_, std::align_val_t(128));
#endif
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  std::size_t size() const { return size_; }
  T* data() { return data_; }
  T& operator[](std::size_t i) { return data_[i]; }
  std::vector<T> copy() const { return {data_, data_ + size_}; }

 private:
  std::size_t size_;
  T* data_ = nullptr;
};

template <class... Arguments>
int run(const Arguments&... arguments) {
  const int error = cuda::launch(arguments...);
#if defined(__CUDACC__)
  return error ? error : static_cast<int>(cudaDeviceSynchronize());
#else
  return error;
#endif
}

// Fixed numbers that look random.
inline std::uint32_t noise(std::uint64_t i) {
  std::uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<std::uint32_t>((z ^ (z >> 31)) >> 16);
}

}  // namespace gradkern::test

#define RUN(...)                                                            \
  do {                                                                      \
    const int error_of_run = ::gradkern::test::run(__VA_ARGS__);            \
    CHECK(error_of_run == 0, ::gradkern::cuda::launch_error(error_of_run)); \
  } while (false)
