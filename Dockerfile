# The binary on a small Debian. Build: docker build -t pg2any --build-arg PG2ANY_COMMIT=$(git rev-parse --short=12 HEAD) .
FROM rust:1-bookworm AS build
# For the feature kafka: make, a C++ compiler (in the image) and OpenSSL's headers.
RUN apt-get update && apt-get install -y --no-install-recommends libpq-dev libssl-dev pkg-config make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs clippy.toml rustfmt.toml README.md ./
COPY src src
ARG PG2ANY_COMMIT=
ARG FEATURES=kafka
RUN cargo build --locked --release --bin pg2any --features "$FEATURES"

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends libpq5 libssl3 ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data pg2any && install -d -m 700 -o pg2any -g pg2any /data
COPY --from=build /src/target/release/pg2any /usr/local/bin/pg2any
USER pg2any
WORKDIR /data
# The spool. On a volume: what is acknowledged to PostgreSQL is here and nowhere else.
VOLUME /data
ENV PG2ANY_DATA_DIR=/data/spool PG2ANY_METRICS_ADDRESS=0.0.0.0:8080
EXPOSE 8080
# Healthy: changes move, or there are none. It asks through the data directory, whatever the port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["pg2any", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["pg2any"]
CMD ["run"]
