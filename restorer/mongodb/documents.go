package mongodb

import "context"

// Documents names documents.
type Documents struct{}

func (r *run) documents(ctx context.Context) error { return nil }
