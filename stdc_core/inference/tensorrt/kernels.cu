// SPDX-License-Identifier: Apache-2.0
// Kernels around the network on the GPU: bytes to planes, logits to bytes, and class colours over an image. They are
// compiled when they are first needed.
//
// Coordinates follow ONNX's Resize with align_corners: x * (from - 1) / (to - 1).

#ifdef HALF
typedef unsigned short real;  // bits of an IEEE half; these two instructions need no header
__device__ float from_real(real bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
__device__ real to_real(float value) {
  real bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
#else
typedef float real;
__device__ float from_real(real value) { return value; }
__device__ real to_real(float value) { return value; }
#endif

struct Place {  // a position between two neighbours, with the share of the second one
  int low, high;
  float share;
};

__device__ Place place(int index, int from, int to) {
  float position = to > 1 ? (float)index * (float)(from - 1) / (float)(to - 1) : 0.0f;
  int low = min((int)position, from - 1);
  Place result = {low, min(low + 1, from - 1), position - (float)low};
  return result;
}

// For each input plane of the network: its channel in the image, and gain and offset that turn a byte into a number.
struct Normalization {
  int channel[3];
  float gain[3];
  float offset[3];
};

// Turn images, uint8 [N, height, width, 3], into planes, real [N, 3, to_height, to_width]. Each thread computes a pixel;
// the block indices are x, row and image.
extern "C" __global__ void prepare(const unsigned char* images, real* planes, int height, int width, int to_height,
                                   int to_width, Normalization norm) {
  int x = blockIdx.x * blockDim.x + threadIdx.x;
  if (x >= to_width) return;
  Place column = place(x, width, to_width), row = place(blockIdx.y, height, to_height);
  const unsigned char* image = images + (size_t)blockIdx.z * height * width * 3;
  const unsigned char* top = image + (size_t)row.low * width * 3;
  const unsigned char* bottom = image + (size_t)row.high * width * 3;
  size_t area = (size_t)to_height * to_width;
  real* out = planes + (size_t)blockIdx.z * 3 * area + (size_t)blockIdx.y * to_width + x;
  for (int plane = 0; plane < 3; ++plane) {
    int left = 3 * column.low + norm.channel[plane], right = 3 * column.high + norm.channel[plane];
    float upper = top[left] + column.share * ((float)top[right] - (float)top[left]);
    float lower = bottom[left] + column.share * ((float)bottom[right] - (float)bottom[left]);
    out[plane * area] = to_real((upper + row.share * (lower - upper)) * norm.gain[plane] + norm.offset[plane]);
  }
}

// Turn logits, real [N, classes, height, width], into masks, uint8 [N, to_height, to_width]: the class with the largest
// logit after bilinear upsampling, and its softmax probability, 0 to 1 as 0 to 255, unless `confidence` is null. A block
// computes `span` pixels of a row; the block indices are x, row and image. Shared memory contains the interpolated row of
// logits that the block needs, [classes][at most `columns`].
extern "C" __global__ void classify(const real* logits, unsigned char* mask, unsigned char* confidence, int classes,
                                    int height, int width, int to_height, int to_width, int span, int columns) {
  extern __shared__ float between[];
  int begin = blockIdx.x * span, end = min(begin + span, to_width);
  int first = place(begin, width, to_width).low, last = place(end - 1, width, to_width).high;
  int count = min(last - first + 1, columns);
  Place row = place(blockIdx.y, height, to_height);
  size_t area = (size_t)height * width;
  const real* plane = logits + (size_t)blockIdx.z * classes * area + first;
  for (int index = threadIdx.x; index < classes * count; index += blockDim.x) {
    const real* column = plane + (index / count) * area + index % count;
    float upper = from_real(column[(size_t)row.low * width]), lower = from_real(column[(size_t)row.high * width]);
    between[index] = upper + row.share * (lower - upper);
  }
  __syncthreads();
  for (int x = begin + threadIdx.x; x < end; x += blockDim.x) {
    Place at = place(x, width, to_width);
    int left = at.low - first, right = at.high - first;
    float best = 0.0f;
    int winner = -1;
    for (int c = 0; c < classes; ++c) {
      float low = between[c * count + left], high = between[c * count + right];
      float logit = low + at.share * (high - low);
      if (winner < 0 || logit > best) {
        best = logit;
        winner = c;
      }
    }
    size_t pixel = ((size_t)blockIdx.z * to_height + blockIdx.y) * to_width + x;
    mask[pixel] = (unsigned char)winner;
    if (confidence) {
      float sum = 0.0f;
      for (int c = 0; c < classes; ++c) {
        float low = between[c * count + left], high = between[c * count + right];
        sum += expf(low + at.share * (high - low) - best);
      }
      confidence[pixel] = (unsigned char)rintf(1.0f / sum * 255.0f);
    }
  }
}

// Draw class colours over an image, uint8 [height, width, 3], by its mask, uint8 [height, width]. `blending` has four
// numbers for each id: BGR to add, and the factor that the pixel is multiplied by before. Each thread computes a pixel.
extern "C" __global__ void draw(const unsigned char* image, const unsigned char* mask, const float* blending,
                                unsigned char* overlay, int pixels) {
  int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const float* row = blending + 4 * mask[pixel];
  for (int channel = 0; channel < 3; ++channel) {
    float blended = row[3] * (float)image[3 * pixel + channel] + row[channel];
    overlay[3 * pixel + channel] = (unsigned char)rintf(blended);
  }
}
