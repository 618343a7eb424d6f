#include "simt/traffic.hpp"

#include <link.h>

#include <algorithm>
#include <atomic>
#include <set>

#include "simt/executor.hpp"

namespace gradkern::simt {
namespace {

using Range = std::pair<std::uintptr_t, std::uintptr_t>;

// Where this thread of the operating system keeps its thread_local variables, __shared__ ones among them.
std::vector<Range> thread_locals() {
  std::vector<Range> ranges;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type != PT_TLS || !info->dlpi_tls_data) continue;
          const auto begin = reinterpret_cast<std::uintptr_t>(info->dlpi_tls_data);
          static_cast<std::vector<Range>*>(data)->emplace_back(begin, begin + info->dlpi_phdr[i].p_memsz);
        }
        return 0;
      },
      &ranges);
  return ranges;
}

std::vector<std::uintptr_t> by_lane(std::vector<std::pair<unsigned, std::uintptr_t>> lanes) {
  std::sort(lanes.begin(), lanes.end());
  std::vector<std::uintptr_t> addresses;
  for (const auto& [lane, address] : lanes) addresses.push_back(address);
  return addresses;
}

std::uint64_t distinct(const std::vector<std::uintptr_t>& addresses, unsigned bytes, unsigned unit) {
  std::set<std::uintptr_t> units;
  for (const std::uintptr_t address : addresses) {
    for (std::uintptr_t u = address / unit; u <= (address + bytes - 1) / unit; ++u) units.insert(u);
  }
  return units.size();
}

// A wave serves up to 128 bytes: 32, 16 or 8 lanes at a time. Different words of one bank take a wave each.
std::uint64_t waves_of(const std::vector<std::uintptr_t>& addresses, unsigned bytes) {
  const std::size_t lanes = bytes <= 4 ? warp_size : 128 / bytes;
  std::uint64_t waves = 0;
  for (std::size_t first = 0; first < addresses.size(); first += lanes) {
    std::set<std::uintptr_t> banks[32];
    for (std::size_t i = first; i < std::min(first + lanes, addresses.size()); ++i) {
      for (std::uintptr_t w = addresses[i] / 4; w <= (addresses[i] + bytes - 1) / 4; ++w) banks[w % 32].insert(w);
    }
    std::size_t most = 0;
    for (const auto& words : banks) most = std::max(most, words.size());
    waves += most;
  }
  return waves;
}

}  // namespace

Traffic& Traffic::operator+=(const Traffic& other) {
  requests += other.requests;
  sectors += other.sectors;
  ideal_sectors += other.ideal_sectors;
  shared_requests += other.shared_requests;
  waves += other.waves;
  ideal_waves += other.ideal_waves;
  return *this;
}

void Requests::add(const Site& site, unsigned warp, unsigned lane, const void* address, unsigned bytes) {
  const Place place{site.operation, site.file, site.line};
  const unsigned time = times_[{place, warp, lane}]++;
  Request& request = requests_[{place, warp, time}];
  request.bytes = bytes;
  request.lanes.emplace_back(lane, reinterpret_cast<std::uintptr_t>(address));
}

Traffic Requests::take(const void* shared, std::size_t size) {
  std::vector<Range> ranges = thread_locals();
  const auto begin = reinterpret_cast<std::uintptr_t>(shared);
  ranges.emplace_back(begin, begin + size);
  Traffic sum;
  for (const auto& [key, request] : requests_) {
    const unsigned bytes = request.bytes;
    const std::vector<std::uintptr_t> addresses = by_lane(request.lanes);
    const std::uintptr_t first = addresses.front();
    if (std::any_of(ranges.begin(), ranges.end(), [&](Range r) { return r.first <= first && first < r.second; })) {
      const std::uint64_t lanes = bytes <= 4 ? warp_size : 128 / bytes;
      ++sum.shared_requests;
      sum.waves += waves_of(addresses, bytes);
      sum.ideal_waves += (addresses.size() + lanes - 1) / lanes;
    } else {
      ++sum.requests;
      sum.sectors += distinct(addresses, bytes, 32);
      sum.ideal_sectors += (distinct(addresses, bytes, 1) + 31) / 32;
    }
  }
  times_.clear();
  requests_.clear();
  return sum;
}

}  // namespace gradkern::simt
