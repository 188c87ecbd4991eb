// SPDX-License-Identifier: Apache-2.0
// CUDA C on the host, for host_device.py: a thread for each thread of a block, and one block after another.
#include <immintrin.h>

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstddef>
#include <thread>
#include <utility>
#include <vector>

using std::max;
using std::min;

struct Index {
  unsigned x, y, z;
};

static thread_local Index blockIdx, threadIdx, blockDim;
static thread_local std::barrier<>* together;

#define __device__ static inline
#define __global__
#define __shared__
#define __syncthreads() together->arrive_and_wait()

float between[48 << 8];  // the shared memory of a block: 48 KiB

template <class... Arguments, std::size_t... Indices>
void call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<Indices...>) {
  kernel(*static_cast<Arguments*>(arguments[Indices])...);
}

template <class... Arguments>
void launch(void (*kernel)(Arguments...), const unsigned* grid, unsigned block, void** arguments) {
  std::barrier<> barrier(block);
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < block; ++thread)
    threads.emplace_back([&, thread] {
      together = &barrier;
      threadIdx = {thread, 0, 0};
      blockDim = {block, 1, 1};
      for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
          for (unsigned x = 0; x < grid[0]; ++x) {
            blockIdx = {x, y, z};
            call(kernel, arguments, std::index_sequence_for<Arguments...>());
            barrier.arrive_and_wait();  // the shared memory is the next block's from here on
          }
    });
  for (auto& thread : threads) thread.join();
}

#define LAUNCH(kernel) \
  extern "C" void launch_##kernel(const unsigned* grid, unsigned block, void** arguments) { \
    launch(kernel, grid, block, arguments); \
  }
