//! The trait of other registries, over whichever database this file is compiled for.

use async_trait::async_trait;
use uuid::Uuid;

use super::super::pull_through::*;
use super::super::{Repository, Result, TenantId, Time};
use super::{Database, pull_through};
use crate::domain::{Digest, TagName};

#[async_trait]
impl PullThrough for Database {
    async fn tag_checked(&self, repository: &Repository, tag: &TagName) -> Result<Option<Time>> {
        self.read((repository.clone(), tag.clone()), |c, (repository, tag)| {
            Box::pin(pull_through::tag_checked(c, repository, tag))
        })
        .await
    }

    async fn note_tag_checked(&self, repository: &Repository, tag: &TagName, now: Time) -> Result<()> {
        self.write(
            (repository.clone(), tag.clone(), now),
            |c, (repository, tag, now)| Box::pin(pull_through::note_tag_checked(c, repository, tag, *now)),
        )
        .await
    }

    async fn take_claim(&self, key: &ClaimKey, take: TakeClaim) -> Result<Claimed> {
        self.write((key.clone(), take), |c, (key, take)| {
            Box::pin(pull_through::take_claim(c, key, take))
        })
        .await
    }

    async fn renew_claim(
        &self,
        key: &ClaimKey,
        holder: Uuid,
        upload: Option<Uuid>,
        until: Time,
    ) -> Result<bool> {
        self.write(
            (key.clone(), holder, upload, until),
            |c, (key, holder, upload, until)| {
                Box::pin(pull_through::renew_claim(c, key, *holder, *upload, *until))
            },
        )
        .await
    }

    async fn release_claim(&self, key: &ClaimKey, holder: Uuid) -> Result<()> {
        self.write((key.clone(), holder), |c, (key, holder)| {
            Box::pin(pull_through::release_claim(c, key, *holder))
        })
        .await
    }

    async fn forget_pull_through(&self, claims: Time, checks: Time, limit: u32) -> Result<u64> {
        self.write_later((claims, checks, limit), |c, (claims, checks, limit)| {
            Box::pin(pull_through::forget(c, *claims, *checks, *limit))
        })
        .await
    }

    async fn names_blob(&self, repository: &Repository, blob: &Digest) -> Result<Option<Digest>> {
        self.read((repository.clone(), *blob), |c, (repository, blob)| {
            Box::pin(pull_through::names_blob(c, repository, blob))
        })
        .await
    }

    async fn add_cache_news(&self, tenant: TenantId, cache: &str, news: CacheNews) -> Result<()> {
        self.write_later((tenant, cache.to_owned(), news), |c, (tenant, cache, news)| {
            Box::pin(pull_through::add_news(c, *tenant, cache, news))
        })
        .await
    }

    async fn cache_figures(&self, tenant: TenantId, cache: &str) -> Result<CacheFigures> {
        self.read((tenant, cache.to_owned()), |c, (tenant, cache)| {
            Box::pin(pull_through::figures(c, *tenant, cache))
        })
        .await
    }

    async fn keep_cache_figures(&self, tenant: TenantId, caches: &[String]) -> Result<()> {
        self.write_later((tenant, caches.to_vec()), |c, (tenant, caches)| {
            Box::pin(pull_through::keep_figures(c, *tenant, caches))
        })
        .await
    }

    async fn stored_below(&self, tenant: TenantId, prefix: &str) -> Result<(u64, u64)> {
        self.read((tenant, prefix.to_owned()), |c, (tenant, prefix)| {
            Box::pin(pull_through::stored_below(c, *tenant, prefix))
        })
        .await
    }
}
