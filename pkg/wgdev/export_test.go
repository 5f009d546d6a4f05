//go:build linux

package wgdev

// OpenByWGCtrl drives an interface the way a kernel device is driven. wgctrl also
// finds userspace devices, so the code can be tested without the kernel's.
func OpenByWGCtrl(name string) (*Device, error) {
	drv, err := openKernel(name)
	if err != nil {
		return nil, err
	}
	return &Device{name: name, backend: Kernel, drv: drv}, nil
}
