package bucket

import (
	"context"
	"strings"
)

// sub shows the part of a bucket under a prefix that ends with a slash.
type sub struct {
	b      Bucket
	prefix string
}

// Sub returns the part of b under prefix; a slash at prefix's end may be left out. An empty prefix returns b.
func Sub(b Bucket, prefix string) Bucket {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		return b
	}
	prefix += "/"
	if s, ok := b.(sub); ok {
		return sub{s.b, s.prefix + prefix}
	}
	return sub{b, prefix}
}

// name makes the name in the whole bucket. An empty name stays empty so that it is refused.
func (s sub) name(name string) string {
	if name == "" || name[0] == '/' {
		return name
	}
	return s.prefix + name
}

// Put implements [Bucket].
func (s sub) Put(ctx context.Context, name string, data []byte) error {
	return s.b.Put(ctx, s.name(name), data)
}

// Create implements [Bucket].
func (s sub) Create(ctx context.Context, name string, data []byte) error {
	return s.b.Create(ctx, s.name(name), data)
}

// Get implements [Bucket].
func (s sub) Get(ctx context.Context, name string) ([]byte, error) {
	return s.b.Get(ctx, s.name(name))
}

// GetRange implements [Bucket].
func (s sub) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	return s.b.GetRange(ctx, s.name(name), offset, length)
}

// Size implements [Bucket].
func (s sub) Size(ctx context.Context, name string) (int64, error) {
	return s.b.Size(ctx, s.name(name))
}

// List implements [Bucket].
func (s sub) List(ctx context.Context, prefix, after string, fn func(Info) error) error {
	if after != "" {
		after = s.prefix + after
	}
	return s.b.List(ctx, s.prefix+prefix, after, func(i Info) error {
		i.Name = i.Name[len(s.prefix):]
		return fn(i)
	})
}

// Delete implements [Bucket].
func (s sub) Delete(ctx context.Context, name string) error {
	return s.b.Delete(ctx, s.name(name))
}

// String implements [Bucket].
func (s sub) String() string {
	return strings.TrimSuffix(s.b.String(), "/") + "/" + strings.TrimSuffix(s.prefix, "/")
}
