# The binary on a small Debian. Build: docker build -t pg2any .
FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libpq-dev pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock clippy.toml rustfmt.toml README.md ./
COPY src src
RUN cargo build --locked --release --bin pg2any

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends libpq5 ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data pg2any && install -d -m 700 -o pg2any -g pg2any /data
COPY --from=build /src/target/release/pg2any /usr/local/bin/pg2any
USER pg2any
WORKDIR /data
# The spool. On a volume: what is acknowledged to PostgreSQL is here and nowhere else.
VOLUME /data
ENV PG2ANY_DATA_DIR=/data/spool
STOPSIGNAL SIGTERM
ENTRYPOINT ["pg2any"]
CMD ["run"]
