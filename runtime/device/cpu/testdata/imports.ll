declare float @expf(float)
define float @k(float %x) {
  %y = call float @expf(float %x)
  ret float %y
}
