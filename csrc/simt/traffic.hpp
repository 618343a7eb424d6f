// What a kernel asks of memory, counted for judging it: the 32-byte sectors of global requests and the waves of shared
// ones (a wave reads or writes each of 32 banks once), against the least that would do.
//
// A request is what the lanes of a warp ask for at one place: the n-th time at a site belongs to the n-th time of the
// other lanes. Seen are load*, store*, cp_async* and ldmatrix*, not plain indexing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

namespace gradkern::simt {

struct Site;

struct Traffic {
  std::uint64_t requests = 0;                    // to global memory
  std::uint64_t sectors = 0, ideal_sectors = 0;  // ideal: the distinct bytes, packed
  std::uint64_t shared_requests = 0;
  std::uint64_t waves = 0, ideal_waves = 0;  // ideal: 128 bytes a wave
  Traffic& operator+=(const Traffic& other);
};

void count(bool on);  // whether launches count from now on; off at first
Traffic traffic();    // of this thread's last launch that counted

// The requests of one block.
class Requests {
 public:
  void add(const Site& site, unsigned warp, unsigned lane, const void* address, unsigned bytes);
  // Judges and forgets all; [shared, shared + bytes) is the dynamic shared memory.
  Traffic take(const void* shared, std::size_t bytes);

 private:
  using Place = std::tuple<const char*, const char*, int>;  // operation, file, line
  struct Request {
    unsigned bytes;
    std::vector<std::pair<unsigned, std::uintptr_t>> lanes;  // who asks, for which address
  };
  std::map<std::tuple<Place, unsigned, unsigned>, unsigned> times_;    // of a lane of a warp at a place
  std::map<std::tuple<Place, unsigned, unsigned>, Request> requests_;  // the n-th of a warp at a place
};

}  // namespace gradkern::simt
