// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// kernel is an unpacked package of Debian's.
type kernel struct {
	dir     string
	release string
	image   string   // that QEMU boots
	modules []string // needed to mount the root file system, dependencies first
}

// openKernel finds or fetches a kernel, and prepares what booting it takes.
func openKernel(ctx context.Context, cache, name string) (k kernel, err error) {
	k.dir = name
	if !filepath.IsAbs(name) {
		if k.dir, err = fetch(ctx, cache, name); err != nil {
			return k, fmt.Errorf("kernel %s: %w", name, err)
		}
	}
	images, _ := filepath.Glob(filepath.Join(k.dir, "boot/vmlinuz-*"))
	if len(images) != 1 {
		return k, fmt.Errorf("kernel %s: %d images in %s/boot", name, len(images), k.dir)
	}
	k.release = strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	if _, err := os.Stat(filepath.Join(k.dir, "lib/modules", k.release, "modules.dep.bin")); err != nil {
		if _, err := command(ctx, "", "depmod", "-b", k.dir, k.release); err != nil {
			return k, err
		}
	}
	if k.modules, err = k.order("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"); err != nil {
		return k, err
	}
	k.image = filepath.Join(cache, "vmlinux-"+k.release)
	if _, err := os.Stat(k.image); err != nil && unpack(ctx, images[0], k.image) != nil {
		k.image = images[0] // it boots, only slower
	}
	return k, nil
}

// fetch downloads and unpacks the newest generic kernel of a line, such as 6.1, that apt lists.
func fetch(ctx context.Context, cache, line string) (string, error) {
	kernels := filepath.Join(cache, "kernels")
	if err := os.MkdirAll(kernels, 0o755); err != nil {
		return "", err
	}
	wanted := regexp.MustCompile(`^linux-image-` + regexp.QuoteMeta(line) + `\.[0-9][0-9.+-]*(deb[0-9]+)?-amd64$`)
	have, _ := filepath.Glob(filepath.Join(kernels, "linux-image-"+line+".*"))
	if len(have) > 0 {
		return slices.Max(have), nil
	}
	list, err := command(ctx, "", "apt-cache", "pkgnames", "linux-image-"+line+".")
	if err != nil {
		return "", err
	}
	var names []string
	for _, n := range strings.Fields(string(list)) {
		if wanted.MatchString(n) {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "", errors.New("apt lists none; apt-get update may help")
	}
	newest := slices.MaxFunc(names, byVersion(ctx))
	tmp, err := os.MkdirTemp(cache, "deb-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if _, err := command(ctx, tmp, "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", newest); err != nil {
		return "", err
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages", len(debs))
	}
	if _, err := command(ctx, tmp, "dpkg-deb", "-x", debs[0], "root"); err != nil {
		return "", err
	}
	dir := filepath.Join(kernels, newest)
	return dir, os.Rename(filepath.Join(tmp, "root"), dir)
}

// byVersion orders package names as dpkg orders versions.
func byVersion(ctx context.Context) func(a, b string) int {
	return func(a, b string) int {
		if exec.CommandContext(ctx, "dpkg", "--compare-versions", strings.TrimPrefix(a, "linux-image-"), "lt", strings.TrimPrefix(b, "linux-image-")).Run() == nil {
			return -1
		}
		return 1
	}
}

// order lists the files of modules, each after those it depends on.
func (k kernel) order(names ...string) ([]string, error) {
	root := filepath.Join(k.dir, "lib/modules", k.release)
	text, err := os.ReadFile(filepath.Join(root, "modules.dep"))
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{} // by the module's name; of each file the dependencies, as modules.dep has them
	for line := range strings.Lines(string(text)) {
		file, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		base, _, _ := strings.Cut(filepath.Base(file), ".ko")
		needs[strings.ReplaceAll(base, "-", "_")] = append([]string{file}, strings.Fields(rest)...)
	}
	var out []string
	for _, name := range names {
		files := needs[name]
		slices.Reverse(files) // what is needed most comes last
		for _, f := range files {
			if p := filepath.Join(root, f); !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out, nil // a module that is not there is built in
}

// unpack takes the ELF image out of a bzImage: without KVM, unpacking it in the guest takes seconds.
func unpack(ctx context.Context, from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	for magic, tool := range map[string]string{"\xfd7zXZ\x00": "xz", "\x28\xb5\x2f\xfd": "zstd", "\x1f\x8b\x08": "gzip"} {
		for at := bytes.Index(data, []byte(magic)); at >= 0; {
			cmd := exec.CommandContext(ctx, tool, "-dc")
			cmd.Stdin = bytes.NewReader(data[at:])
			image, _ := cmd.Output() // it complains of what follows the image
			if _, err := elf.NewFile(bytes.NewReader(image)); err == nil {
				if err := os.WriteFile(to+".new", image, 0o644); err != nil {
					return err
				}
				return os.Rename(to+".new", to)
			}
			next := bytes.Index(data[at+1:], []byte(magic))
			if next < 0 {
				break
			}
			at += 1 + next
		}
	}
	return errors.New("no compressed ELF image in it")
}
