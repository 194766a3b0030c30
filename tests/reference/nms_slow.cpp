// Soft NMS as detectors compile it: one pick after the other, lowered scores below min_score swapped away.
#include <algorithm>
#include <cmath>
#include <vector>

extern "C" int soft_nms(const float* start, const float* end, const float* score, int n, int method, float sigma,
                        float iou_threshold, float min_score, int* picks, float* lowered) {
  std::vector<float> s(start, start + n), e(end, end + n), p(score, score + n), length(n);
  std::vector<int> index(n);
  for (int i = 0; i < n; i++) index[i] = i, length[i] = e[i] - s[i] + 1e-6f;
  auto swap = [&](int a, int b) {
    std::swap(s[a], s[b]), std::swap(e[a], e[b]), std::swap(p[a], p[b]), std::swap(length[a], length[b]), std::swap(index[a], index[b]);
  };
  int alive = n, i = 0;
  for (; i < alive; i++) {
    swap(i, int(std::max_element(p.begin() + i, p.begin() + alive) - p.begin()));
    picks[i] = index[i], lowered[i] = p[i];
    for (int j = i + 1; j < alive; j++) {
      float inter = std::max(0.f, std::min(e[i], e[j]) - std::max(s[i], s[j]));
      float iou = inter / (length[i] + length[j] - inter);
      if (method == 2) p[j] *= std::exp(-(iou * iou) / sigma);
      else if (iou >= iou_threshold) p[j] *= method == 1 ? 1 - iou : 0;
      if (p[j] < min_score) swap(j--, --alive);
    }
  }
  return i;
}
