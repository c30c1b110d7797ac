#!/bin/sh
# Make software OpenGL available: nothing to do if MuJoCo can render, else Mesa's EGL by apt where that is allowed.
# Usage: install_gl.sh PYTHON
renders() {
    "$1" -c 'import mujoco; c = mujoco.GLContext(8, 8); c.make_current(); c.free()' >/dev/null 2>&1
}
renders "$1" && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq libegl1 libegl-mesa0 libgl1-mesa-dri libgl1 libglib2.0-0 >/dev/null
    renders "$1" && exit 0
fi
echo "OpenGL is missing: sudo apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libgl1, then run make again." >&2
exit 1
