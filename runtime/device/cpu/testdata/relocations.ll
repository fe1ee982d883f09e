@x = global i64 1
@p = global ptr @x
define ptr @k() {
  ret ptr @p
}
