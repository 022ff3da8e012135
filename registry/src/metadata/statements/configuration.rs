//! The trait of configuration, over whichever database this file is compiled for.

use async_trait::async_trait;
use uuid::Uuid;

use super::super::configuration::*;
use super::super::{Result, TenantId, Time};
use super::{Database, audit, config, replicas, tokens, usage};
use crate::domain::{RepositoryName, TenantName};

#[async_trait]
impl Configuration for Database {
    async fn first_tenant(&self, tenant: FirstTenant) -> Result<()> {
        self.write(tenant, |c, tenant| Box::pin(config::first_tenant(c, tenant)))
            .await
    }

    async fn version(&self) -> Result<i64> {
        self.read((), |c, ()| Box::pin(config::version(c))).await
    }

    async fn changed(&self) {
        self.listen().await;
    }

    async fn objects(&self, cursor: ObjectCursor, limit: u32) -> Result<Vec<Object>> {
        self.read((cursor, limit), |c, (cursor, limit)| {
            Box::pin(config::objects(c, cursor, *limit))
        })
        .await
    }

    async fn object(&self, tenant: &TenantName, kind: ObjectKind, name: &str) -> Result<Option<Object>> {
        let asked = (tenant.clone(), kind, name.to_owned());
        self.read(asked, |c, (tenant, kind, name)| {
            Box::pin(config::find(c, tenant, *kind, name))
        })
        .await
    }

    async fn apply(&self, changes: ChangeSet) -> Result<Applied> {
        self.write(changes, |c, changes| Box::pin(config::apply(c, changes)))
            .await
    }

    async fn new_term(&self) -> Result<i64> {
        self.write((), |c, ()| Box::pin(config::new_term(c))).await
    }

    async fn forget_deleted(&self, before: Time) -> Result<()> {
        self.write(before, |c, before| Box::pin(config::forget_deleted(c, *before)))
            .await
    }

    async fn heartbeat(&self, replica: Replica) -> Result<()> {
        self.write(replica, |c, replica| Box::pin(replicas::heartbeat(c, replica)))
            .await
    }

    async fn leave(&self, id: Uuid) -> Result<()> {
        self.write(id, |c, id| Box::pin(replicas::leave(c, *id))).await
    }

    async fn replicas(&self, since: Time) -> Result<Vec<Replica>> {
        self.read(since, |c, since| Box::pin(replicas::since(c, *since)))
            .await
    }

    async fn token(&self, id: &str) -> Result<Option<TokenRow>> {
        self.tokens.ask(id.to_owned()).await
    }

    async fn put_token(&self, token: TokenRow, term: Option<i64>, audit: AuditRecord) -> Result<TokenChange> {
        self.write((token, term, audit), |c, (token, term, audit)| {
            Box::pin(tokens::put(c, token, *term, audit))
        })
        .await
    }

    async fn regrant_token(
        &self,
        tenant: TenantId,
        id: &str,
        grants: String,
        term: Option<i64>,
        audit: AuditRecord,
    ) -> Result<TokenChange> {
        self.write(
            (tenant, id.to_owned(), grants, term, audit),
            |c, (tenant, id, grants, term, audit)| {
                Box::pin(tokens::regrant(c, *tenant, (id, grants), *term, audit))
            },
        )
        .await
    }

    async fn expire_token(&self, tenant: TenantId, id: &str, at: Time, audit: AuditRecord) -> Result<bool> {
        self.write(
            (tenant, id.to_owned(), at, audit),
            |c, (tenant, id, at, audit)| Box::pin(tokens::expire(c, *tenant, id, *at, audit)),
        )
        .await
    }

    async fn revoke_token(
        &self,
        tenant: TenantId,
        id: &str,
        term: Option<i64>,
        audit: AuditRecord,
    ) -> Result<TokenChange> {
        self.write(
            (tenant, id.to_owned(), term, audit),
            |c, (tenant, id, term, audit)| Box::pin(tokens::revoke(c, *tenant, id, *term, audit)),
        )
        .await
    }

    async fn tokens(&self, tenant: TenantId, after: String, limit: u32) -> Result<Vec<TokenRow>> {
        self.read((tenant, after, limit), |c, (tenant, after, limit)| {
            Box::pin(tokens::list(c, *tenant, after, *limit))
        })
        .await
    }

    async fn tokens_used(&self, ids: Vec<String>, at: Time) -> Result<()> {
        self.write((ids, at), |c, (ids, at)| Box::pin(tokens::used(c, ids, *at)))
            .await
    }

    async fn usage(&self, tenant: TenantId) -> Result<Usage> {
        self.read(tenant, |c, tenant| Box::pin(usage::of_tenant(c, *tenant)))
            .await
    }

    async fn repository_usage(&self, tenant: TenantId, name: &RepositoryName) -> Result<Option<Usage>> {
        self.read((tenant, name.clone()), |c, (tenant, name)| {
            Box::pin(usage::of_repository(c, *tenant, name))
        })
        .await
    }

    async fn repository_usages(
        &self,
        tenant: TenantId,
        after: String,
        limit: u32,
    ) -> Result<Vec<(String, Usage)>> {
        self.read((tenant, after, limit), |c, (tenant, after, limit)| {
            Box::pin(usage::of_repositories(c, *tenant, after, *limit))
        })
        .await
    }

    async fn record(&self, records: Vec<AuditRecord>) -> Result<()> {
        self.write(records, |c, records| Box::pin(audit::insert(c, records)))
            .await
    }

    async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditRecord>> {
        self.read(query, |c, query| Box::pin(audit::list(c, query))).await
    }

    async fn forget_audit(&self, before: Time, limit: u32) -> Result<u64> {
        self.write((before, limit), |c, (before, limit)| {
            Box::pin(audit::forget(c, *before, *limit))
        })
        .await
    }
}
